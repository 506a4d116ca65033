package mqtt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

func testOpenHAB() OpenHAB {
	return OpenHAB{Broker: "ssl://certsitter:secret@broker.home.arpa:8884", Certificates: testSnapshot().Certificates}
}

// openHABFiles are all generators by the name of what they make.
func openHABFiles() map[string]func(OpenHAB) []byte {
	return map[string]func(OpenHAB) []byte{
		"things": OpenHABThings, "items": OpenHABItems, "rules": OpenHABRules, "sitemap": OpenHABSitemap, "yaml": OpenHABYAML,
	}
}

func TestOpenHABFiles(t *testing.T) {
	for name, generate := range openHABFiles() {
		golden(t, "testdata/openhab/certsitter."+name, generate(testOpenHAB()))
		o := testOpenHAB()
		o.Bridge, o.Topic = "mqtt:broker:mosquitto", "2nd"
		golden(t, "testdata/openhab/bridge."+name, generate(o))
	}
}

func TestOpenHABFilesHoldNoSecret(t *testing.T) {
	for name, generate := range openHABFiles() {
		text := string(generate(testOpenHAB()))
		if strings.Contains(text, "secret") || strings.Contains(text, "certsitter:secret") {
			t.Errorf("%s: %s", name, text)
		}
		if n := strings.Count(text, "change-me"); n != map[string]int{"things": 1, "yaml": 1}[name] {
			t.Errorf("%s: the placeholder is there %d times", name, n)
		}
	}
}

func TestOpenHABBridge(t *testing.T) {
	for uid, good := range map[string]bool{
		"mqtt:broker:mosquitto": true, "mqtt:broker:a-B_9": true, "mqtt:systemBroker:embedded": true,
		"mosquitto": false, "mqtt:broker": false, "mqtt:broker:": false, "mqtt:broker:a:b": false, "zwave:x:y": false,
		"mqtt:broker:a b": false, "mqtt:broker:a\"": false, "mqtt:broker:ä": false, "": false,
	} {
		if err := CheckOpenHABBridge(uid); (err == nil) != good {
			t.Errorf("%q: %v", uid, err)
		}
	}
}

func TestOpenHABBroker(t *testing.T) {
	for broker, want := range map[string]string{
		"":                                 `host="192.168.1.10", port=1883, secure=false`,
		"no broker":                        `host="192.168.1.10", port=1883, secure=false`,
		"tcp://u:p@10.0.0.2":               `host="10.0.0.2", port=1883, secure=false`,
		"ssl://broker.home.arpa":           `host="broker.home.arpa", port=8883, secure=true`,
		"ws://broker.home.arpa/mqtt":       `host="broker.home.arpa", port=1883, secure=false`,
		"wss://broker.home.arpa:9001/mqtt": `host="broker.home.arpa", port=8883, secure=true`,
		"tcp://[fd00::1]:1884":             `host="fd00::1", port=1884, secure=false`,
	} {
		if got := string(OpenHABThings(OpenHAB{Broker: broker})); !strings.Contains(got, "[ "+want+", username=") {
			t.Errorf("%s: not %s in\n%s", broker, want, got)
		}
	}
}

// Whatever the two forms say of Things and Items is the same, and what was meant.
func TestOpenHABFormsMeanTheSame(t *testing.T) {
	for _, bridge := range []string{"", "mqtt:broker:mosquitto"} {
		o := testOpenHAB()
		o.Bridge = bridge
		things, items := parseThings(t, OpenHABThings(o)), parseItems(t, OpenHABItems(o))
		inYAML, itemsInYAML := parseOpenHABYAML(t, OpenHABYAML(o))
		compareLines(t, "things", things.lines(), inYAML.lines())
		compareLines(t, "items", items.lines(), itemsInYAML.lines())
		if got := len(things.things); got != 1+len(o.Certificates) {
			t.Errorf("%d Things", got)
		}
		if (things.bridge != nil) != (bridge == "") {
			t.Errorf("bridge %v", things.bridge)
		}
	}
}

func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s differ:\n%s\n\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Every Item is linked to a channel that there is, and of the type that the
// channel takes; groups and the Items of rules and sitemap are there.
func TestOpenHABItemsFindTheirChannels(t *testing.T) {
	o := testOpenHAB()
	things, items := parseThings(t, OpenHABThings(o)), parseItems(t, OpenHABItems(o))
	types := map[string]string{"number": "Number", "datetime": "DateTime", "string": "String", "switch": "Switch"}
	linked := map[string]bool{}
	for name, item := range items {
		if strings.HasPrefix(item.kind, "Group") {
			continue
		}
		uid, id, _ := cutLast(item.links["channel"], ":")
		channel, ok := things.things[uid].channels[id]
		if !ok || types[channel.kind] != item.kind {
			t.Errorf("%s (%s) is linked to %s, which is %+v", name, item.kind, item.links["channel"], channel)
		}
		linked[item.links["channel"]] = true
		if _, ok := items[item.group]; item.group != "" && !ok {
			t.Errorf("%s: there is no group %s", name, item.group)
		}
		wantAuto := ""
		if channel.config["commandTopic"] != "" {
			wantAuto = "false"
		}
		if item.links["autoupdate"] != wantAuto {
			t.Errorf("%s: autoupdate %q", name, item.links["autoupdate"])
		}
	}
	for uid, thing := range things.things {
		for id, channel := range thing.channels {
			if !linked[uid+":"+id] && channel.kind != "trigger" {
				t.Errorf("%s:%s has no Item", uid, id)
			}
		}
	}
	for name, text := range map[string][]byte{"rules": OpenHABRules(o), "sitemap": OpenHABSitemap(o)} {
		found := 0
		for _, tok := range lex(t, text, sitemapID) {
			if strings.HasPrefix(tok.text, "Certsitter_") && !tok.quoted {
				found++
				if _, ok := items[tok.text]; !ok {
					t.Errorf("%s: there is no Item %s", name, tok.text)
				}
			}
			if uid, ok := strings.CutSuffix(tok.text, ":event"); ok && tok.quoted && things.things[uid].channels["event"].kind != "trigger" {
				t.Errorf("%s: there is no channel %s", name, tok.text)
			}
		}
		if found == 0 {
			t.Errorf("%s: no Item found", name)
		}
	}
}

// What a Thing reads is what the publisher has really published, each JSONPath
// finds its value there, and each command is heard.
func TestOpenHABThingsReadWhatIsPublished(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	settle(t, b, p, testMessages(t))
	events := watch(t, b, "certsitter/cert/#")
	for uid, thing := range parseThings(t, OpenHABThings(testOpenHAB())).things {
		available, ok := b.Retained(thing.config["availabilityTopic"])
		if !ok || available != thing.config["payloadAvailable"] || thing.config["payloadNotAvailable"] != offline {
			t.Errorf("%s: availability %q", uid, available)
		}
		for id, channel := range thing.channels {
			at := uid + ":" + id
			switch {
			case channel.kind == "trigger":
				name := strings.Split(channel.config["stateTopic"], "/")[2]
				p.Event(name, Event{Type: "renewed"})
				var payload string
				await(t, "event", func() bool {
					for _, line := range events.seen() {
						if rest, ok := strings.CutPrefix(line, channel.config["stateTopic"]+" "); ok {
							payload = rest
						}
					}
					return payload != ""
				})
				if got := jsonPath(t, payload, channel.config["transformationPattern"]); got != "renewed" {
					t.Errorf("%s: %q", at, got)
				}
			case channel.config["commandTopic"] != "":
				if err := b.Publish(channel.config["commandTopic"], []byte(channel.config["allowedStates"]), false); err != nil {
					t.Fatal(err)
				}
				select {
				case c := <-p.Commands():
					if c.Kind != id {
						t.Errorf("%s: command %+v", at, c)
					}
				default:
					await(t, "command of "+at, func() bool { return len(p.commands) > 0 })
					if c := <-p.Commands(); c.Kind != id {
						t.Errorf("%s: command %+v", at, c)
					}
				}
			default:
				payload, ok := b.Retained(channel.config["stateTopic"])
				if !ok {
					t.Errorf("%s: nothing on %s", at, channel.config["stateTopic"])
					continue
				}
				value := jsonPath(t, payload, channel.config["transformationPattern"])
				if !fits(channel, value) {
					t.Errorf("%s is a %s, and its value %q", at, channel.kind, value)
				}
			}
		}
	}
}

// jsonPath does what openHAB's transformation does for paths of our form.
func jsonPath(t *testing.T, payload, pattern string) string {
	t.Helper()
	key, ok := strings.CutPrefix(pattern, "JSONPATH:$.")
	var values map[string]any
	d := json.NewDecoder(strings.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&values); err != nil || !ok {
		t.Fatalf("%s of %s: %v", pattern, payload, err)
	}
	v, there := values[key]
	if !there || v == nil {
		t.Fatalf("%s finds nothing in %s", pattern, payload)
	}
	return fmt.Sprint(v)
}

func fits(c parsedChannel, value string) bool {
	switch c.kind {
	case "number":
		_, err := strconv.Atoi(value)
		return err == nil || value == none
	case "datetime":
		return value == none || at(value).Location().String() == "UTC"
	case "switch":
		return value == c.config["on"] || value == c.config["off"]
	}
	return c.kind == "string"
}

// Every value that a certificate has and that is announced is a channel too.
func TestOpenHABHasAllThatIsAnnounced(t *testing.T) {
	things := parseThings(t, OpenHABThings(testOpenHAB())).things
	for _, a := range announcements(t, testMessages(t)) {
		parts := strings.Split(a.topic, "/")
		node, object := parts[2], parts[3]
		if object == "connection" || strings.HasPrefix(object, "target_") { // the Thing's own status; not in the configuration
			continue
		}
		thing := things["mqtt:topic:certsitter:"+node]
		channel, ok := thing.channels[object]
		if !ok {
			t.Errorf("%s has no channel %s", node, object)
		}
		if channel.label != a.Name {
			t.Errorf("%s of %s is called %q and %q", object, node, channel.label, a.Name)
		}
		if topic := channel.config["commandTopic"]; topic != a.CommandTopic {
			t.Errorf("%s of %s: command topic %s, want %s", object, node, topic, a.CommandTopic)
		}
	}
	for _, watched := range []string{"nas", "pem"} {
		if _, ok := things["mqtt:topic:certsitter:certsitter_"+watched].channels["renew"]; ok {
			t.Errorf("%s can be renewed", watched)
		}
	}
}

// awkward are labels that break texts which are put together carelessly.
var awkward = []string{
	`back\slash`, `quote"`, `'single'`, "brackets [%d] and ]", "100 %s %1$tY %", "<angle> & «guillemets»", "emoji 🔐👩‍💻", "tab\tline\nend\r",
	"\x00\x1b[31m", "// no comment", "/* no comment */", `\"`, `\\`, `\u0041`, "{ } [ ] ( )", "'''", "# hash: colon", "- dash", "true", "~", "ünïcødé",
	"a\u2028b\u202ec\ufeffd", "\xff\xfe", "${ENV:HOME}", "rule \"x\"", "", strings.Repeat("long ", 100),
}

func TestOpenHABLabels(t *testing.T) {
	for _, label := range awkward {
		checkLabel(t, label)
	}
}

func FuzzOpenHABLabels(f *testing.F) {
	for _, label := range awkward {
		f.Add(label)
	}
	f.Fuzz(func(t *testing.T, label string) { checkLabel(t, label) })
}

// checkLabel reads back from every file what was meant.
func checkLabel(t *testing.T, label string) {
	t.Helper()
	o := OpenHAB{Certificates: []Certificate{{Name: "x", Label: label, Managed: true, Endpoints: true}}}
	want := text(label, nameLimit)
	if want == none {
		want = "x"
	}
	things, items := parseThings(t, OpenHABThings(o)), parseItems(t, OpenHABItems(o))
	if got := things.things["mqtt:topic:certsitter:certsitter_x"].label; got != want {
		t.Errorf("label %q became %q", want, got)
	}
	item := items["Certsitter_x_days_left"]
	if name := strings.NewReplacer("[", "(", "]", ")").Replace(want) + ": Days left"; item.label != strings.TrimSpace(name) || item.format != "%d days" {
		t.Errorf("Item %q is called %q with format %q", name, item.label, item.format)
	}
	inYAML, itemsInYAML := parseOpenHABYAML(t, OpenHABYAML(o))
	compareLines(t, "things", things.lines(), inYAML.lines())
	compareLines(t, "items", items.lines(), itemsInYAML.lines())
	if rules := parseRules(t, OpenHABRules(o)); !slices.Contains(rules["Certsitter: x failed"], want) {
		t.Errorf("rules do not name %q: %q", want, rules)
	}
	frames := parseSitemap(t, OpenHABSitemap(o))
	if got := slices.Collect(maps.Keys(frames)); !slices.Contains(got, strings.NewReplacer("[", "(", "]", ")").Replace(want)) {
		t.Errorf("sitemap has %q", got)
	}
}

func TestOpenHABRulesAndSitemap(t *testing.T) {
	rules := parseRules(t, OpenHABRules(testOpenHAB()))
	want := []string{"Certsitter: a certificate needs a person", "Certsitter: home failed", "Certsitter: new_one failed", "Certsitter: nobody looks after the certificates"}
	if got := slices.Sorted(maps.Keys(rules)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("rules %q", got)
	}
	for _, event := range []string{"renewal_failed", "deploy_failed"} {
		if !slices.Contains(eventTypes(), event) || !slices.Contains(rules["Certsitter: home failed"], event) {
			t.Errorf("no rule for %s", event)
		}
	}
	frames := parseSitemap(t, OpenHABSitemap(testOpenHAB()))
	for frame, widgets := range map[string]int{"Certsitter": 9, "home.example.org": 11, "new.example.org": 10, "nas": 7, "pem": 6} {
		if frames[frame] != widgets {
			t.Errorf("frame %s has %d widgets, want %d", frame, frames[frame], widgets)
		}
	}
}

// Ids must not change when others come or go, and no two may be the same.
func TestOpenHABIdsAreStable(t *testing.T) {
	one := OpenHAB{Certificates: []Certificate{{Name: "a_b", Managed: true}}}
	more := OpenHAB{Certificates: []Certificate{{Name: "a", Managed: true}, {Name: "a_b", Label: "other", Managed: true, Endpoints: true}, {Name: "a_not", Endpoints: true},
		{Name: "days"}, {Name: "b_last", Managed: true}, {Name: "b"}, {Name: "service"}, {Name: "B"}, {Name: "b"}, {Name: "service_lowest", Managed: true}}}
	before, after := parseItems(t, OpenHABItems(one)), parseItems(t, OpenHABItems(more))
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s is gone", name)
		}
	}
	if got := len(parseThings(t, OpenHABThings(more)).things); got != 8 {
		t.Errorf("%d Things", got)
	}
}

// A strict reader of openHAB's own syntax (Xtext; terminals as in openHAB core
// 4.1 to 5.3). It reads no more than what the grammar allows.

type token struct {
	text   string
	quoted bool
	mark   bool // one of ( ) [ ] { } < > , : = @
}

// Which characters an id may have beside letters, digits and _.
const (
	thingID   = "-"
	sitemapID = ""
)

func lex(t testing.TB, input []byte, idExtra string) []token {
	t.Helper()
	if !utf8.Valid(input) {
		t.Fatalf("not UTF-8: %q", input)
	}
	var all []token
	s := string(input)
	isID := func(r rune) bool {
		return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(idExtra, r)
	}
	for s != "" {
		switch {
		case strings.ContainsAny(s[:1], " \t\r\n"):
			s = s[1:]
		case strings.HasPrefix(s, "//"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			t.Fatalf("there is no comment of this kind: %q", s)
		case s[0] == '"':
			var value string
			value, s = lexString(t, s)
			all = append(all, token{text: value, quoted: true})
		case strings.ContainsAny(s[:1], "()[]{}<>,:=@.!"):
			all = append(all, token{text: s[:1], mark: true})
			s = s[1:]
		default:
			end := strings.IndexFunc(s, func(r rune) bool { return !isID(r) })
			if end <= 0 {
				t.Fatalf("no token begins here: %.60q", s)
			}
			all = append(all, token{text: s[:end]})
			s = s[end:]
		}
	}
	return all
}

func lexString(t testing.TB, s string) (value, rest string) {
	t.Helper()
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:]
		case c == '\\' && i+1 < len(s):
			i++
			plain, ok := map[byte]string{'b': "\b", 't': "\t", 'n': "\n", 'f': "\f", 'r': "\r", '"': `"`, '\'': "'", '\\': `\`}[s[i]]
			if !ok {
				t.Fatalf("escape \\%c", s[i])
			}
			b.WriteString(plain)
		case c < ' ':
			t.Fatalf("control character in %q", s)
		default:
			b.WriteByte(c)
		}
	}
	t.Fatalf("a text has no end: %q", s)
	return "", ""
}

type reading struct {
	testing.TB
	tokens []token
}

func (r *reading) peek() token {
	if len(r.tokens) == 0 {
		return token{}
	}
	return r.tokens[0]
}

func (r *reading) next() token {
	r.Helper()
	if len(r.tokens) == 0 {
		r.Fatalf("the file ends too early")
	}
	tok := r.tokens[0]
	r.tokens = r.tokens[1:]
	return tok
}

func (r *reading) mark(want string) {
	r.Helper()
	if got := r.next(); !got.mark || got.text != want {
		r.Fatalf("%q where %s belongs, before %v", got.text, want, r.tokens[:min(5, len(r.tokens))])
	}
}

func (r *reading) takes(mark string) bool {
	if got := r.peek(); got.mark && got.text == mark {
		r.next()
		return true
	}
	return false
}

func (r *reading) id() string {
	r.Helper()
	tok := r.next()
	if tok.quoted || tok.mark {
		r.Fatalf("%q is no id", tok.text)
	}
	return tok.text
}

func (r *reading) str() string {
	r.Helper()
	tok := r.next()
	if !tok.quoted {
		r.Fatalf("%q is no text", tok.text)
	}
	return tok.text
}

func (r *reading) uid() string {
	parts := []string{r.id()}
	for r.takes(":") {
		parts = append(parts, r.id())
	}
	return strings.Join(parts, ":")
}

// config reads [ key=value, … ]; a number or truth value is marked.
func (r *reading) config() map[string]string {
	all := map[string]string{}
	r.mark("[")
	for {
		key := r.id()
		r.mark("=")
		if _, twice := all[key]; twice {
			r.Fatalf("%s is there twice", key)
		}
		if r.peek().quoted {
			all[key] = r.str()
		} else {
			all[key] = "bare " + r.id()
		}
		if !r.takes(",") {
			break
		}
	}
	r.mark("]")
	return all
}

type parsedThings struct {
	bridge map[string]string // configuration; nil = none
	uid    string            // the bridge's
	things map[string]parsedThing
}

type parsedThing struct {
	label, bridge string
	config        map[string]string
	channels      map[string]parsedChannel
}

type parsedChannel struct {
	kind, label string
	config      map[string]string
}

func parseThings(t testing.TB, input []byte) parsedThings {
	t.Helper()
	r := &reading{t, lex(t, input, thingID)}
	p := parsedThings{things: map[string]parsedThing{}}
	if r.peek().text != "Bridge" {
		for len(r.tokens) > 0 {
			r.thing(&p, "")
		}
		return p
	}
	r.next()
	p.uid = r.uid()
	r.str()
	p.bridge = r.config()
	r.mark("{")
	for !r.takes("}") {
		r.thing(&p, p.uid)
	}
	if len(r.tokens) > 0 {
		t.Fatalf("behind the bridge: %v", r.tokens)
	}
	return p
}

func (r *reading) thing(p *parsedThings, inside string) {
	r.Helper()
	if r.id() != "Thing" {
		r.Fatal("a Thing is expected")
	}
	th := parsedThing{bridge: inside, channels: map[string]parsedChannel{}}
	var uid string
	if inside != "" { // type and id; the rest of the UID is the bridge's
		kind, id := r.id(), r.id()
		uid = "mqtt:" + kind + ":" + inside[strings.LastIndex(inside, ":")+1:] + ":" + id
	} else {
		uid = r.uid()
	}
	th.label = r.str()
	if inside == "" {
		r.mark("(")
		th.bridge = r.uid()
		r.mark(")")
	}
	th.config = r.config()
	r.mark("{")
	if r.id() != "Channels" {
		r.Fatal("Channels: is expected")
	}
	r.mark(":")
	for !r.takes("}") {
		if r.id() != "Type" {
			r.Fatal("Type is expected")
		}
		c := parsedChannel{kind: r.id()}
		r.mark(":")
		id := r.id()
		c.label = r.str()
		c.config = r.config()
		if _, twice := th.channels[id]; twice {
			r.Fatalf("channel %s is there twice", id)
		}
		th.channels[id] = c
	}
	if _, twice := p.things[uid]; twice {
		r.Fatalf("Thing %s is there twice", uid)
	}
	p.things[uid] = th
}

func (p parsedThings) lines() []string {
	var all []string
	if p.bridge != nil {
		all = append(all, fmt.Sprint(p.uid, p.bridge))
	}
	for _, uid := range slices.Sorted(maps.Keys(p.things)) {
		th := p.things[uid]
		all = append(all, fmt.Sprintf("%s %q %s %v", uid, th.label, th.bridge, th.config))
		for _, id := range slices.Sorted(maps.Keys(th.channels)) {
			all = append(all, fmt.Sprintf("  %s %+v", id, th.channels[id]))
		}
	}
	return all
}

type parsedItem struct {
	kind, label, format, icon, group string
	links                            map[string]string
}

type parsedItems map[string]parsedItem

func (p parsedItems) lines() []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p)) {
		all = append(all, fmt.Sprintf("%s %+v", name, p[name]))
	}
	return all
}

func parseItems(t testing.TB, input []byte) parsedItems {
	t.Helper()
	r := &reading{t, lex(t, input, thingID)}
	all := parsedItems{}
	for len(r.tokens) > 0 {
		item := parsedItem{kind: r.uid(), links: map[string]string{}}
		if r.takes("(") {
			item.kind += "(" + r.id()
			for r.takes(",") {
				item.kind += "," + r.id()
			}
			r.mark(")")
			item.kind += ")"
		}
		name := r.id()
		item.label, item.format = labelAndFormat(r.str())
		r.mark("<")
		item.icon = r.id()
		r.mark(">")
		if r.takes("(") {
			item.group = r.id()
			r.mark(")")
		}
		if r.takes("{") {
			for {
				key := r.id()
				r.mark("=")
				item.links[key] = r.str()
				if !r.takes(",") {
					break
				}
			}
			r.mark("}")
		}
		if _, twice := all[name]; twice {
			t.Fatalf("Item %s is there twice", name)
		}
		all[name] = item
	}
	return all
}

// labelAndFormat does what openHAB does: from the first [ to the last ] it is a
// format.
func labelAndFormat(s string) (label, format string) {
	from, to := strings.IndexByte(s, '['), strings.LastIndexByte(s, ']')
	if from < 0 || to < from {
		return strings.TrimSpace(s), ""
	}
	return strings.TrimSpace(s[:from]), s[from+1 : to]
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// parseRules gives the texts in each rule, by its name.
func parseRules(t testing.TB, input []byte) map[string][]string {
	t.Helper()
	r := &reading{t, lex(t, input, "")}
	all := map[string][]string{}
	for len(r.tokens) > 0 {
		if r.id() != "rule" {
			t.Fatal("a rule is expected")
		}
		name := r.str()
		var texts []string
		depth, part := 0, ""
		for {
			tok := r.next()
			switch {
			case tok.quoted:
				texts = append(texts, tok.text)
			case tok.mark && tok.text == "(":
				depth++
			case tok.mark && tok.text == ")":
				depth--
			case slices.Contains([]string{"when", "then", "end"}, tok.text):
				part += tok.text + " "
			}
			if tok.text == "end" && !tok.quoted {
				break
			}
		}
		if _, twice := all[name]; twice || depth != 0 || part != "when then end " {
			t.Fatalf("rule %q: %q, %d open", name, part, depth)
		}
		all[name] = texts
	}
	return all
}

// parseSitemap gives the number of widgets in each frame.
func parseSitemap(t testing.TB, input []byte) map[string]int {
	t.Helper()
	r := &reading{t, lex(t, input, sitemapID)}
	frames := map[string]int{}
	if r.id() != "sitemap" {
		t.Fatal("a sitemap is expected")
	}
	r.id()
	r.key("label")
	r.str()
	r.mark("{")
	for !r.takes("}") {
		if r.id() != "Frame" {
			t.Fatal("a Frame is expected")
		}
		r.key("label")
		label := r.str()
		r.mark("{")
		for !r.takes("}") {
			r.widget()
			frames[label]++
		}
		if frames[label] == 0 {
			t.Fatal("a frame is empty")
		}
	}
	if len(r.tokens) > 0 {
		t.Fatalf("behind the sitemap: %v", r.tokens)
	}
	return frames
}

func (r *reading) key(want string) {
	r.Helper()
	if got := r.id(); got != want {
		r.Fatalf("%q where %s belongs", got, want)
	}
	r.mark("=")
}

func (r *reading) widget() {
	r.Helper()
	kind := r.id()
	r.key("item")
	r.id()
	r.key("label")
	if label := r.str(); strings.ContainsAny(label, "[]") {
		r.Fatalf("label %q has a format", label)
	}
	switch {
	case kind == "Switch":
		r.key("mappings")
		r.mark("[")
		r.key(press)
		r.str()
		r.mark("]")
	case kind != "Text":
		r.Fatalf("widget %s", kind)
	case r.peek().text == "valuecolor":
		r.key("valuecolor")
		r.mark("[")
		for {
			r.id()
			r.mark("=")
			r.mark("=")
			r.id()
			r.mark("=")
			r.str()
			if !r.takes(",") {
				break
			}
		}
		r.mark("]")
	}
}

// parseOpenHABYAML reads the form of openHAB 5 into the same as the others. It
// takes no key that openHAB does not know.
func parseOpenHABYAML(t testing.TB, input []byte) (parsedThings, parsedItems) {
	t.Helper()
	var file struct {
		Version int `yaml:"version"`
		Things  map[string]struct {
			IsBridge bool           `yaml:"isBridge"`
			Bridge   string         `yaml:"bridge"`
			Label    string         `yaml:"label"`
			Config   map[string]any `yaml:"config"`
			Channels map[string]struct {
				Type   string         `yaml:"type"`
				Label  string         `yaml:"label"`
				Config map[string]any `yaml:"config"`
			} `yaml:"channels"`
		} `yaml:"things"`
		Items map[string]struct {
			Type  string `yaml:"type"`
			Group struct {
				Type       string   `yaml:"type"`
				Function   string   `yaml:"function"`
				Parameters []string `yaml:"parameters"`
			} `yaml:"group"`
			Label      string   `yaml:"label"`
			Icon       string   `yaml:"icon"`
			Format     string   `yaml:"format"`
			Groups     []string `yaml:"groups"`
			Autoupdate *bool    `yaml:"autoupdate"`
			Channel    string   `yaml:"channel"`
		} `yaml:"items"`
	}
	if err := yaml.UnmarshalWithOptions(input, &file, yaml.Strict()); err != nil || file.Version != 1 {
		t.Fatalf("version %d: %v\n%s", file.Version, err, input)
	}
	things, items := parsedThings{things: map[string]parsedThing{}}, parsedItems{}
	for uid, th := range file.Things {
		if th.IsBridge {
			things.uid, things.bridge = uid, plainConfig(t, th.Config)
			continue
		}
		parsed := parsedThing{label: th.Label, bridge: th.Bridge, config: plainConfig(t, th.Config), channels: map[string]parsedChannel{}}
		for id, c := range th.Channels {
			parsed.channels[id] = parsedChannel{kind: c.Type, label: c.Label, config: plainConfig(t, c.Config)}
		}
		things.things[uid] = parsed
	}
	for name, i := range file.Items {
		item := parsedItem{kind: i.Type, label: i.Label, format: i.Format, icon: i.Icon, group: strings.Join(i.Groups, ","), links: map[string]string{}}
		if i.Channel != "" {
			item.links["channel"] = i.Channel
		}
		if i.Autoupdate != nil {
			item.links["autoupdate"] = fmt.Sprint(*i.Autoupdate)
		}
		if i.Type == "Group" {
			item.kind = "Group:" + i.Group.Type + ":" + i.Group.Function
			if len(i.Group.Parameters) > 0 {
				item.kind += "(" + strings.Join(i.Group.Parameters, ",") + ")"
			}
		}
		items[name] = item
	}
	return things, items
}

func plainConfig(t testing.TB, config map[string]any) map[string]string {
	t.Helper()
	plain := map[string]string{}
	for key, v := range config {
		switch v := v.(type) {
		case string:
			plain[key] = v
		case []any:
			if len(v) != 1 {
				t.Fatalf("%s is %v", key, v)
			}
			plain[key] = fmt.Sprint(v[0])
		default:
			plain[key] = "bare " + fmt.Sprint(v)
		}
	}
	return plain
}
