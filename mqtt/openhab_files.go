package mqtt

import "strconv"

// OpenHABThings is a .things file: a Thing of the MQTT binding for the service
// and for each certificate, with a channel for each value and command. openHAB
// needs the MQTT binding and the JSONPath transformation for it, nothing else.
func OpenHABThings(o OpenHAB) []byte {
	g := newGenerator(&o)
	g.put("// Certsitter: Things for openHAB 4.1 and newer, for the folder things of its configuration.\n" +
		"// Needed: the MQTT binding and the JSONPath transformation.\n")
	indent := ""
	if !g.given {
		g.put("// "+brokerAdvice+"Bridge @ \"MQTT broker\"", "// ", g.bridge)
		g.bracketed(g.ownBroker())
		g.put(" {\n")
		indent = "    "
	}
	for i := range g.all {
		g.thing(&g.all[i], indent)
	}
	if !g.given {
		g.put("}\n")
	}
	return g.out
}

func (g *generator) thing(t *thing, indent string) {
	if g.given {
		g.put("Thing @@ @ (@)", g.uid, t.id, dslText(t.label), g.bridge)
	} else {
		g.put("@Thing topic @ @", indent, t.id, dslText(t.label))
	}
	g.bracketed(g.available)
	g.put(" {\n@    Channels:\n", indent)
	for i := range t.facts {
		x := &t.facts[i]
		channel, _, _ := openHABKind(x.kind)
		g.put("@        Type @ : @ @", indent, channel, x.key, dslText(x.label))
		g.bracketed(t.settings(x))
		g.put("\n")
	}
	g.put("@}\n", indent)
}

// bracketed writes a configuration in the syntax of openHAB's own files.
func (g *generator) bracketed(all []string) {
	mark := " [ "
	for i := 0; i < len(all); i += 2 {
		key, value := all[i], all[i+1]
		if key != port && key != secure {
			value = dslText(value)
		}
		g.put("@@=@", mark, key, value)
		mark = ", "
	}
	g.put(" ]")
}

// OpenHABItems is a .items file for the Things of OpenHABThings: an Item for
// each channel but events, and two groups, of days and of problems.
func OpenHABItems(o OpenHAB) []byte {
	g := newGenerator(&o)
	g.put(`// Certsitter: Items for openHAB 4.1 and newer, for the folder items of its configuration.
// They are linked to the Things that certsitter openhab things prints for the same bridge.
Group:Number:MIN @ "Certificates: fewest days left [%d days]" <time>
Group:Switch:OR(ON,OFF) @ "Certificates: any problem [%s]" <error>
`, g.daysGroup(), g.problemGroup())
	for i := range g.all {
		g.put("\n")
		t := &g.all[i]
		for j := range t.facts {
			g.dslItem(t, &t.facts[j])
		}
	}
	return g.out
}

func (g *generator) dslItem(t *thing, x *fact) {
	_, item, format := openHABKind(x.kind)
	if item == "" {
		return
	}
	label := itemLabel(t, x)
	if format != "" {
		label += " [" + format + "]"
	}
	g.put("@ @ @ <@>", item, g.item(t, x.key), dslText(label), x.icon)
	if group := g.group(t, x.key); group != "" {
		g.put(" (@)", group)
	}
	g.put(` { channel="@@:@"`, g.uid, t.id, x.key)
	if x.kind == factButton { // a command is no state
		g.put(`, autoupdate="false"`)
	}
	g.put(" }\n")
}

func itemLabel(t *thing, x *fact) string { return plainLabel(t.label) + ": " + x.label }

// OpenHABRules is a .rules file: what needs a person goes into openHAB's log,
// and from there to wherever people read it.
func OpenHABRules(o OpenHAB) []byte {
	g := newGenerator(&o)
	g.put(`// Certsitter: rules for openHAB 4.1 and newer, for the folder rules of its configuration.
// They need the Things and Items that certsitter openhab things and items print for the same bridge.
// With the openHAB Cloud connector, sendBroadcastNotification(text) sends what logWarn only writes down.

rule "Certsitter: a certificate needs a person"
when
    Member of @ changed to ON
then
    logWarn("certsitter", "{}: a person is needed", triggeringItem.label)
end
`, g.problemGroup())
	for i := range g.all {
		t := &g.all[i]
		if !t.managed { // the others are renewed by somebody else
			continue
		}
		g.put(`
rule "Certsitter: @ failed"
when
    Channel "@@:event" triggered "renewal_failed" or
    Channel "@@:event" triggered "deploy_failed"
then
    logWarn("certsitter", "{}: {}", @, @.state)
end
`, t.part, g.uid, t.id, g.uid, t.id, dslText(t.label), g.item(t, "last_result"))
	}
	g.put(`
rule "Certsitter: nobody looks after the certificates"
when
    Thing "@@" changed to OFFLINE
then
    logWarn("certsitter", "Certsitter is offline: the certificates are neither watched nor renewed")
end
`, g.uid, g.base)
	return g.out
}

// OpenHABSitemap is a .sitemap file with a frame for each certificate. The file
// must have the sitemap's name: <topic>.sitemap.
func OpenHABSitemap(o OpenHAB) []byte {
	g := newGenerator(&o)
	name := sitemapName(g.base)
	g.put(`// Certsitter: a sitemap for openHAB 4.1 and newer, for sitemaps/@.sitemap in its configuration.
// It shows the Items that certsitter openhab items prints.
sitemap @ label="Certificates" {
`, name, name)
	for i := range g.all {
		t := &g.all[i]
		g.put("    Frame label=@ {\n", dslText(plainLabel(t.label)))
		for j := range t.facts {
			g.widget(t, &t.facts[j])
		}
		g.put("    }\n")
	}
	g.put("}\n")
	return g.out
}

// sitemapName begins with a letter.
func sitemapName(base string) string {
	if base[0] <= '9' {
		return defaultBase + base
	}
	return base
}

func (g *generator) widget(t *thing, x *fact) {
	widget := "Text"
	switch x.kind {
	case factEvent:
		return
	case factButton:
		widget = "Switch"
	}
	g.put("        @ item=@ label=@", widget, g.item(t, x.key), dslText(x.label))
	switch {
	case x.kind == factButton:
		g.put(" mappings=[PRESS=@]", dslText(x.label))
	case t.event != "" && (x.kind == factDays || x.kind == factStatus):
		problem := g.item(t, "problem")
		g.put(` valuecolor=[@==ON="red", @==OFF="green"]`, problem, problem)
	}
	g.put("\n")
}

// OpenHABYAML is a file for the folder yaml of openHAB 5: the same Things and
// Items as the other two have. An entity must not be defined in both forms.
func OpenHABYAML(o OpenHAB) []byte {
	g := newGenerator(&o)
	g.put(`# Certsitter: Things and Items for openHAB 5.0 and newer, for the folder yaml of its configuration.
# Use this or the files .things and .items, not both. Needed: the MQTT binding and the JSONPath transformation.
# Rules and sitemap are not in it: openHAB reads them from YAML only from 5.2 on, and the files .rules and .sitemap everywhere.
version: 1
things:
`)
	if !g.given {
		g.put("  # "+brokerAdvice+"  @:\n    isBridge: true\n    label: MQTT broker\n", "  # ", strconv.Quote(g.bridge))
		g.yamlSettings("    ", g.ownBroker())
	}
	for i := range g.all {
		g.yamlThing(&g.all[i])
	}
	g.put(`items:
  @:
    type: Group
    group:
      type: Number
      function: MIN
    label: "Certificates: fewest days left"
    icon: time
    format: "%d days"
  @:
    type: Group
    group:
      type: Switch
      function: OR
      parameters: ["ON", "OFF"]
    label: "Certificates: any problem"
    icon: error
    format: "%s"
`, g.daysGroup(), g.problemGroup())
	for i := range g.all {
		t := &g.all[i]
		for j := range t.facts {
			g.yamlItem(t, &t.facts[j])
		}
	}
	return g.out
}

func (g *generator) yamlThing(t *thing) {
	g.put("  @:\n    bridge: @\n    label: @\n", strconv.Quote(g.uid+t.id), strconv.Quote(g.bridge), strconv.Quote(t.label))
	g.yamlSettings("    ", g.available)
	g.put("    channels:\n")
	for i := range t.facts {
		x := &t.facts[i]
		channel, _, _ := openHABKind(x.kind)
		g.put("      @:\n        type: @\n        label: @\n", x.key, channel, strconv.Quote(x.label))
		g.yamlSettings("        ", t.settings(x))
	}
}

// yamlSettings writes a configuration. Every key is quoted: YAML 1.1 takes on
// and off for truth values.
func (g *generator) yamlSettings(indent string, all []string) {
	g.put("@config:\n", indent)
	for i := 0; i < len(all); i += 2 {
		form, key, value := "@  @: @\n", all[i], all[i+1]
		if key != port && key != secure {
			value = strconv.Quote(value)
		}
		if key == transformation {
			form = "@  @: [@]\n"
		}
		g.put(form, indent, strconv.Quote(key), value)
	}
}

func (g *generator) yamlItem(t *thing, x *fact) {
	_, item, format := openHABKind(x.kind)
	if item == "" {
		return
	}
	g.put("  @:\n    type: @\n    label: @\n    icon: @\n", g.item(t, x.key), item, strconv.Quote(itemLabel(t, x)), x.icon)
	if format != "" {
		g.put("    format: @\n", strconv.Quote(format))
	}
	if group := g.group(t, x.key); group != "" {
		g.put("    groups: [@]\n", group)
	}
	if x.kind == factButton { // a command is no state
		g.put("    autoupdate: false\n")
	}
	g.put("    channel: @\n", strconv.Quote(g.uid+t.id+":"+x.key))
}
