package addon

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// actionPattern and actionLength are what a notify action is called. The length is
// no part of the pattern, which would be a hundred times as large.
var actionPattern = regexp.MustCompile(`^[a-z0-9_]+$`)

const actionLength = 100

// notifyOwn are the actions of the domain notify that are no target.
var notifyOwn = []string{"notify", "persistent_notification", "send_message"}

// Notify sends a message by a notify action ("mobile_app_pixel", with "notify."
// before it or not) or to a notify entity of that name. data are the action's own
// settings (see Urgency.Data); an action that refuses them gets the text alone.
// The error is ErrNotUp if sending it again later may help.
func (c *Core) Notify(ctx context.Context, service, title, message string, data map[string]any) error {
	action := strings.TrimPrefix(service, "notify.")
	if len(action) > actionLength || !actionPattern.MatchString(action) {
		return fmt.Errorf("%.60q is no notify action: it is like mobile_app_pixel", service)
	}
	body := texts(title, message)
	if len(data) > 0 {
		body["data"] = data
	}
	got, err := c.perform(ctx, "notify", action, body, 0)
	switch {
	case err != nil:
		return c.lost(err)
	case got.status == http.StatusBadRequest:
		return c.notifyOtherwise(ctx, action, title, message, len(data) > 0, got)
	}
	return c.done(got)
}

// notifyOtherwise finds out why an action was refused: it may take no data, and
// what has its name may be an entity, which takes none either.
func (c *Core) notifyOtherwise(ctx context.Context, action, title, message string, withData bool, refused answer) error {
	offered, err := c.actions(ctx)
	if err != nil {
		return err
	}
	notify := offered["notify"]
	if slices.Contains(notify, action) && withData {
		return c.Notify(ctx, action, title, message, nil)
	}
	if slices.Contains(notify, action) {
		return sentence("Home Assistant's action notify.%s refused the message: %s", action, cmp.Or(refused.message(), "see Home Assistant's log for the reason"))
	}
	entity := "notify." + action
	if slices.Contains(notify, "send_message") && c.exists(ctx, entity) {
		body := texts(title, message)
		body["entity_id"] = entity
		return c.performPlain(ctx, "notify", "send_message", body)
	}
	return unknownAction(action, notify)
}

func unknownAction(action string, notify []string) error {
	targets := slices.DeleteFunc(slices.Sorted(slices.Values(notify)), func(name string) bool { return slices.Contains(notifyOwn, name) })
	if len(targets) == 0 {
		return sentence("Home Assistant has no action notify.%s, and no other that sends messages: install its app on a phone", action)
	}
	more := ""
	if len(targets) > 8 {
		targets, more = targets[:8], " and more"
	}
	return sentence("Home Assistant has no action notify.%s; it has %s%s", action, foreign(strings.Join(targets, ", ")), more)
}

func (c *Core) exists(ctx context.Context, entity string) bool {
	got, err := c.ask(ctx, question{method: http.MethodGet, path: "/api/states/" + entity})
	return err == nil && got.status == http.StatusOK
}

// PersistentNotification shows a message in Home Assistant itself until it is
// dismissed there or by DismissNotification. One with the same id takes the place
// of the one before. All of them are gone after Core's restart. The error is as
// Notify's.
func (c *Core) PersistentNotification(ctx context.Context, id, title, message string) error {
	body := texts(title, unmarked(message)) // the title is shown as it is
	body["notification_id"] = id
	return c.performPlain(ctx, "persistent_notification", "create", body)
}

// DismissNotification takes a message away; one that is not there is no error.
func (c *Core) DismissNotification(ctx context.Context, id string) error {
	return c.performPlain(ctx, "persistent_notification", "dismiss", map[string]any{"notification_id": id})
}

func (c *Core) performPlain(ctx context.Context, domain, action string, body map[string]any) error {
	got, err := c.perform(ctx, domain, action, body, 0)
	if err != nil {
		return c.lost(err)
	}
	return c.done(got)
}

func (c *Core) done(got answer) error {
	switch got.status {
	case http.StatusOK:
		return nil
	case http.StatusBadRequest:
		return sentence("Home Assistant does not understand the message (400): %s", cmp.Or(got.message(), "see its log for the reason"))
	}
	return c.refusal(got)
}

func texts(title, message string) map[string]any {
	body := map[string]any{"message": plain(message)}
	if title != "" {
		body["title"] = plain(title)
	}
	return body
}

var jinja = strings.NewReplacer("{{", "{ {", "{%", "{ %", "{#", "{ #")

// plain keeps a text from being taken for a template, which some notify actions
// do and which a certificate's name could make use of, and drops what is neither
// visible nor a line break.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for strings.Contains(s, "{{") { // {{{ leaves one behind
		s = jinja.Replace(s)
	}
	return jinja.Replace(s)
}

var marks = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "[", `\[`, "]", `\]`, "<", `\<`, "~", `\~`)

// unmarked keeps a text from being taken for Markdown, as which Home Assistant
// shows its own notifications: a wildcard is no emphasis, and a certificate's
// name neither a link nor a picture.
func unmarked(s string) string { return marks.Replace(s) }
