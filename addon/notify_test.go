package addon

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestNotify(t *testing.T) {
	for name, c := range map[string]struct {
		core    *fakeCore
		service string
		want    []string
		refuse  string
		kind    error
	}{
		"a phone": {&fakeCore{}, "mobile_app_pixel", []string{`POST /api/services/notify/mobile_app_pixel {"data":{"tag":"certsitter_home"},"message":"It expires.","title":"home"}`}, "", nil},
		"as Home Assistant writes it": {&fakeCore{}, "notify.mobile_app_pixel",
			[]string{`POST /api/services/notify/mobile_app_pixel {"data":{"tag":"certsitter_home"},"message":"It expires.","title":"home"}`}, "", nil},
		"an entity": {&fakeCore{entity: "notify.living_room"}, "living_room", []string{
			`POST /api/services/notify/living_room {"data":{"tag":"certsitter_home"},"message":"It expires.","title":"home"}`,
			`POST /api/services/notify/send_message {"entity_id":"notify.living_room","message":"It expires.","title":"home"}`}, "", nil},
		"nothing of that name": {&fakeCore{}, "mobile_app_iphone", nil, "has no action notify.mobile_app_iphone; it has mobile_app_pixel", nil},
		"no phone at all":      {&fakeCore{services: withoutApps}, "mobile_app_iphone", nil, "no other that sends messages", nil},
		"a refusal":            {&fakeCore{says: answer{status: 400, body: []byte(`{"message":"extra keys not allowed"}`)}}, "mobile_app_pixel", nil, "refused the message: extra keys not allowed", nil},
		"a failure":            {&fakeCore{says: answer{status: 500, body: []byte(`{"message":"push service is down"}`)}}, "mobile_app_pixel", nil, "status 500: push service is down", nil},
		"no name":              {&fakeCore{}, "../../config", nil, "is no notify action", nil},
		"too long a name":      {&fakeCore{}, strings.Repeat("a", 101), nil, "is no notify action", nil},
		"not up":               {&fakeCore{proxied: true, says: answer{status: 502}}, "mobile_app_pixel", nil, "not up yet", ErrNotUp},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.core
			err := f.start(t).Notify(t.Context(), c.service, "home", "It expires.", map[string]any{"tag": "certsitter_home"})
			checkError(t, err, c.kind)
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) {
					t.Errorf("got %v, want %q", err, c.refuse)
				}
				return
			}
			if err != nil || !slices.Equal(f.posts(), c.want) {
				t.Errorf("got %v, asked %q", err, f.posts())
			}
		})
	}
}

func TestAnActionThatTakesNoDataGetsTheTextAlone(t *testing.T) {
	f := &fakeCore{picky: true}
	if err := f.start(t).Notify(t.Context(), "mobile_app_pixel", "home", "It expires.", Usual.Data("certsitter_home", "")); err != nil {
		t.Fatal(err)
	}
	posts := f.posts()
	if want := `POST /api/services/notify/mobile_app_pixel {"message":"It expires.","title":"home"}`; len(posts) != 2 || posts[1] != want {
		t.Errorf("asked %q", posts)
	}
}

func TestPersistentNotification(t *testing.T) {
	f := &fakeCore{proxied: true}
	c := f.start(t)
	if err := c.PersistentNotification(t.Context(), "certsitter_home", "*.example.org", "a [link](http://x) and <img src=x>\n{{ states('x') }}"); err != nil {
		t.Fatal(err)
	}
	if err := c.DismissNotification(t.Context(), "certsitter_home"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`POST /api/services/persistent_notification/create {"message":"a \\[link\\](http://x) and \\\u003cimg src=x>\n{ { states('x') }}","notification_id":"certsitter_home","title":"*.example.org"}`,
		`POST /api/services/persistent_notification/dismiss {"notification_id":"certsitter_home"}`,
	}
	if got := f.posts(); !slices.Equal(got, []string{strings.ReplaceAll(want[0], "src=x>", `src=x\u003e`), want[1]}) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "{{ 1 }}", "{{{{", "{{%", "{{{#", "a\x1b[31m\u202eb\nc", "\xff{\xfe{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(s)
		for _, opening := range []string{"{{", "{%", "{#"} {
			if strings.Contains(got, opening) {
				t.Errorf("%q became %q", s, got)
			}
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", s, got)
		}
		if clean := !strings.Contains(s, "{"); clean && got != plain(got) {
			t.Errorf("%q is changed twice", s)
		}
	})
}
