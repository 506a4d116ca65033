package page

import (
	"net/url"
	"strconv"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"
)

// The page is made in plain Go, and gomponents escapes every text and attribute.
// html/template would do, too, but it finds methods by their names: with it the
// linker has to keep every exported method of the whole program, which is two
// megabytes.

// html is the whole page.
func (v view) html() g.Node {
	return document(v.Words, v.Base, h.Main(h.ID("main"), h.Class(v.Tone),
		v.header(),
		h.P(h.ID("said"), h.Role("status"), hidden(v.Said == ""), g.Text(v.Said)),
		v.problems(),
		v.certificates(),
		v.messages(),
		v.downloads(),
		v.footer(),
	))
}

// header is the verdict and the button to look again.
func (v view) header() g.Node {
	w := v.Words
	next := g.Group{g.Text(w.NextRenewal + ": "), v.Next.html()}
	if v.NextName != "" {
		next = append(next, g.Text(" ("+v.NextName+")"))
	}
	return h.Header(h.Class("verdict "+v.Tone),
		mark(v.Tone),
		h.Div(
			h.P(h.Class("brand"), g.Text("Certsitter")),
			h.H1(h.Aria("live", "polite"), g.Text(v.Verdict)),
			h.P(h.Class("sub"),
				g.If(v.Next.Text != "", h.Span(next)),
				g.If(v.Checked.Text != "", h.Span(g.Text(w.Checked+": "), v.Checked.html())),
			),
		),
		v.button("api/check", w.CheckSaid, h.ID("check"), h.Class("quiet"), g.Text(w.CheckNow)),
	)
}

// problems are what a person has to do something about.
func (v view) problems() g.Node {
	if len(v.Problems) == 0 {
		return nil
	}
	return section("problems", v.Words.Problems, g.Map(v.Problems, func(p problem) g.Node { return p.html(v.Words) }))
}

func (p problem) html(w words) g.Node {
	who := g.Text(p.Name)
	if p.Anchor != "" {
		who = h.A(h.Href("#"+url.PathEscape(p.Anchor)), who)
	}
	return h.Article(h.Class("problem "+p.Tone),
		mark(p.Tone),
		h.Div(
			h.P(h.Class("who"), who, g.Text(" "), h.Span(h.Class("chip "+p.Tone), g.Text(p.Word))),
			h.P(g.Text(p.Text)),
			g.If(len(p.Details) > 0, h.Ul(h.Class("details"), items(p.Details))),
			g.If(p.Advice != "", h.P(h.Class("advice"), h.B(g.Text(w.WhatToDo)), g.Text(" "+p.Advice))),
		),
	)
}

// certificates are a card each, or how to get the first one.
func (v view) certificates() g.Node {
	if len(v.Certificates) > 0 {
		return section("certificates", v.Words.Certificates,
			h.Div(h.Class("cards"), g.Map(v.Certificates, func(c card) g.Node { return c.html(v) })))
	}
	if !v.Ready {
		return nil
	}
	return section("setup", v.Words.Setup, h.Ol(h.Class("setup"), items(v.Words.SetupSteps[:])))
}

func (c card) html(v view) g.Node {
	return h.Article(h.Class("card "+c.Tone), h.ID(anchor(c.Name)), h.Data("name", c.Name), g.If(c.Renewing, g.Attr("data-renewing")),
		h.Header(
			h.H3(g.Text(c.Label), g.If(c.More > 0, g.Group{g.Text(" "), h.Small(g.Textf("+%d", c.More))})),
			h.Span(h.Class("chip "+c.Tone), mark(c.Tone), g.Text(c.Word)),
		),
		h.P(h.Class("left"), g.If(c.Big != "", g.Group{h.B(g.Text(c.Big)), g.Text(" ")}), g.Text(c.Unit)),
		c.lifetime(),
		c.facts(v.Words),
		c.notes(v.Words),
		h.Div(h.Class("run"), h.Aria("live", "polite"), hidden(!c.Renewing),
			h.P(g.Text(v.Words.Renewing+" …")), h.Ol(g.If(c.Step != "", h.Li(g.Text(c.Step))))),
		h.Div(h.Class("act"), c.buttons(v), c.details(v)),
	)
}

// lifetime is a bar of what is left of it.
func (c card) lifetime() g.Node {
	if c.LifeText == "" {
		return nil
	}
	return h.SVG(h.Class("life"), h.Role("img"), h.Aria("label", c.LifeText), g.Attr("viewBox", "0 0 100 4"), g.Attr("preserveAspectRatio", "none"),
		g.El("rect", h.Width(strconv.Itoa(c.Life)), h.Height("4")))
}

// facts are what is worth knowing without opening the details.
func (c card) facts(w words) g.Node {
	return h.Dl(
		instant(c.End, c.Expires),
		fact(w.Issuer, c.Issuer),
		instant(w.Next, c.Next),
		wide(w.Served, plain(c.Served, func(s served) g.Node {
			return h.Li(mark(s.Tone), h.Span(g.Text(s.Address+" "), h.Small(g.Text(s.Text))))
		})),
		wide(w.Result, text(c.Result)),
	)
}

// notes are sentences about what goes on, and problems that are not urgent.
func (c card) notes(w words) g.Node {
	note := func(tone, text string) g.Node { return h.P(h.Class("note "+tone), g.Text(text)) }
	return g.Group{
		g.If(c.Deployment != "", note("notice", c.Deployment)),
		g.If(c.Restarting, note("notice", w.Restarting)),
		g.Map(c.Notices, func(p problem) g.Node {
			if p.Advice == "" {
				return note(p.Tone, p.Text)
			}
			return note(p.Tone, p.Text+" "+p.Advice)
		}),
	}
}

// buttons are what may be asked for without opening the details.
func (c card) buttons(v view) g.Node {
	w := v.Words
	return g.Group{
		g.If(c.Asks, v.button("api/homeassistant/restart", w.RestartSaid,
			h.ID("restart-"+c.Name), disabled(c.Restarting), g.Text(w.RestartHome))),
		g.If(c.Managed, v.buttonWith("force", c.renewal(), w.RenewSaid,
			h.ID("renew-"+c.Name), g.If(c.Asks, h.Class("quiet")), disabled(c.Renewing), g.Text(w.RenewNow))),
	}
}

// renewal is the address that renews the certificate.
func (c card) renewal() string { return "api/certificates/" + url.PathEscape(c.Name) + "/renew" }

func (c card) details(v view) g.Node {
	w := v.Words
	return h.Details(h.ID("more-"+c.Name), h.Summary(g.Text(w.Details)),
		h.Dl(
			h.Dt(g.Text(c.Name)), h.Dd(g.Text(c.Source)),
			wide(w.Names, plain(c.Names, func(n name) g.Node {
				return h.Li(h.Span(g.Text(n.Text), g.If(n.Lacks, g.Group{g.Text(" "), h.Small(h.Class("warning"), g.Text(w.Lacks))})))
			})),
			instant(w.ValidFrom, c.From),
			instant(w.Renewed, c.Renewed),
			wide(w.Files, plain(c.Files, func(file string) g.Node { return h.Li(h.Code(g.Text(file))) })),
			fact(w.Key, c.Key),
			g.If(c.Print != "", wide(w.Print, h.Code(g.Text(c.Print)))),
		),
		g.If(c.Failures != "", h.P(g.Text(c.Failures))),
		g.If(c.Managed, v.buttonWith("dry_run", c.renewal(), w.TestSaid,
			h.ID("test-"+c.Name), h.Class("quiet"), disabled(c.Renewing), g.Text(w.TestRenewal))),
	)
}

// messages are where they go, and how the broker is.
func (v view) messages() g.Node {
	if !v.Ready {
		return nil
	}
	w := v.Words
	targets := g.Group{h.P(g.Text(w.NoTargets))}
	if len(v.Targets) > 0 {
		targets = g.Group{
			plain(v.Targets, func(t target) g.Node { return t.html(w) }),
			v.button("api/notify/test", w.TestMessageSaid, h.ID("notify"), h.Class("quiet"), g.Text(w.SendTest)),
		}
	}
	return h.Section(h.Class("below"), h.Aria("labelledby", "messages"),
		h.Div(h.H2(h.ID("messages"), g.Text(w.Messages)), targets),
		h.Div(h.H2(g.Text(w.Broker)), h.Ul(h.Class("plain"), v.MQTT.html())),
	)
}

func (t target) html(w words) g.Node {
	since := t.Since.Text != "" && t.Tone != "ok"
	return h.Li(mark(t.Tone), h.Span(
		h.B(g.Text(t.ID)), g.Text(" "+t.Word),
		g.If(since, g.Group{g.Text(" " + w.Since + " "), t.Since.html()}),
		under(t.Error),
	))
}

func (b broker) html() g.Node {
	return h.Li(mark(b.Tone), h.Span(g.Text(b.Word), under(b.URL), under(b.Error)))
}

// downloads are files for other programs.
func (v view) downloads() g.Node {
	if len(v.Downloads) == 0 {
		return nil
	}
	return h.Section(h.Class("below"), h.Aria("labelledby", "downloads"),
		h.Div(
			h.H2(h.ID("downloads"), g.Text(v.Words.Downloads)),
			h.Ul(h.Class("plain files"), g.Map(v.Downloads, func(d Download) g.Node { return d.html(v.Words) })),
		),
	)
}

func (d Download) html(w words) g.Node {
	address := "files/" + url.PathEscape(d.Name)
	copies := h.Button(h.Type("button"), h.ID("copy-"+d.Name), h.Class("quiet"), hidden(true), // but for the script
		h.Data("copy", address), h.Data("copied", w.Copied), h.Data("by-hand", w.CopyByHand), h.Data("close", w.Close), g.Text(w.Copy))
	return h.Li(
		h.A(h.Href(address), h.Download(d.Name), g.Text(d.Title)), g.Text(" "), h.Small(g.Text(d.Name)),
		g.If(d.Copy, g.Group{g.Text(" "), copies}),
	)
}

func (v view) footer() g.Node {
	return h.Footer(
		g.If(!v.MayAct, h.P(g.Text(v.Words.Mute))),
		h.P(g.Text("Certsitter "+v.Version+" · "), h.A(h.Href("api/state"), g.Text("JSON")), g.Text(" · "), h.A(h.Href("metrics"), g.Text("Prometheus"))),
	)
}

// refusal is the page that says why something was not done.
type refusal struct {
	Words             words
	Base, Title, Text string
	Until             moment // when it may be tried again
}

func (r refusal) html() g.Node {
	return document(r.Words, r.Base, h.Main(
		h.Header(h.Class("verdict warning"),
			mark("warning"),
			h.Div(
				h.P(h.Class("brand"), g.Text("Certsitter")),
				h.H1(g.Text(r.Title)),
				h.P(g.Text(r.Text)),
				g.If(r.Until.Text != "", h.P(g.Text(r.Words.Until+" "), r.Until.html())),
				h.P(h.A(h.Href("./"), g.Text(r.Words.Back))),
			),
		),
	))
}

// document puts a page around main. All its links are relative to base; "" =
// to where the page is.
func document(w words, base string, main g.Node) g.Node {
	return h.Doctype(h.HTML(h.Lang(w.Lang),
		h.Head(
			h.Meta(h.Charset("utf-8")),
			h.Meta(h.Name("viewport"), h.Content("width=device-width, initial-scale=1")),
			h.Meta(h.Name("color-scheme"), h.Content("light dark")),
			h.TitleEl(g.Text("Certsitter")),
			g.If(base != "", h.Base(h.Href(base))),
			h.Link(h.Rel("icon"), h.Href("icon.svg"), h.Type("image/svg+xml")),
			h.Link(h.Rel("stylesheet"), h.Href("page.css")),
			h.Script(h.Src("page.js"), h.Defer()),
		),
		h.Body(main),
	))
}

func section(id, title string, content g.Node) g.Node {
	return h.Section(h.Aria("labelledby", id), h.H2(h.ID(id), g.Text(title)), content)
}

// button is one that asks for something, and that says said when it was done;
// nil for those who would not be listened to.
func (v view) button(action, said string, content ...g.Node) g.Node {
	return v.form(action, said, h.Button(content...))
}

// buttonWith says besides that an option is wanted.
func (v view) buttonWith(option, action, said string, content ...g.Node) g.Node {
	return v.form(action, said, h.Input(h.Type("hidden"), h.Name(option), h.Value("1")), h.Button(content...))
}

func (v view) form(action, said string, content ...g.Node) g.Node {
	if !v.MayAct {
		return nil
	}
	return h.Form(h.Method("post"), h.Action(action), h.Data("said", said), g.Group(content))
}

// fact is a line of a card; nil without a value.
func fact(title, value string) g.Node {
	return g.If(value != "", g.Group{h.Dt(g.Text(title)), h.Dd(g.Text(value))})
}

func instant(title string, m moment) g.Node {
	return g.If(m.Text != "", g.Group{h.Dt(g.Text(title)), h.Dd(m.html())})
}

// wide is a fact that needs a line of its own; nil without a value.
func wide(title string, value g.Node) g.Node {
	return g.If(value != nil, g.Group{h.Dt(h.Class("wide"), g.Text(title)), h.Dd(h.Class("wide"), value)})
}

// text is nil for none.
func text(t string) g.Node { return g.If(t != "", g.Text(t)) }

// plain is a list without bullets; nil without an item.
func plain[T any](all []T, item func(T) g.Node) g.Node {
	return g.If(len(all) > 0, h.Ul(h.Class("plain"), g.Map(all, item)))
}

func items(texts []string) g.Node {
	return g.Map(texts, func(t string) g.Node { return h.Li(g.Text(t)) })
}

// under is a line in small letters; nil for none.
func under(text string) g.Node {
	return g.If(text != "", g.Group{h.Br(), h.Small(g.Text(text))})
}

func hidden(is bool) g.Node   { return g.If(is, g.Attr("hidden")) }
func disabled(is bool) g.Node { return g.If(is, h.Disabled()) }

func (m moment) html() g.Node {
	return h.Time(h.DateTime(m.Machine), h.Title(m.Machine), g.Text(m.Text))
}

// mark is a status as a sign in a circle. Words beside it say the same.
func mark(tone string) g.Node {
	return h.SVG(h.Class("mark "+tone), g.Attr("viewBox", "0 0 24 24"), h.Aria("hidden", "true"),
		g.El("circle", g.Attr("cx", "12"), g.Attr("cy", "12"), g.Attr("r", "11")),
		g.El("path", g.Attr("d", glyph(tone))))
}

// glyph is the path of a status mark in a 24 by 24 box.
func glyph(tone string) string {
	switch tone {
	case "ok":
		return "M7 12.5l3.500 3.500 6.500-7.500"
	case "notice":
		return "M12 11v6M12 7v.01"
	case "warning", "critical":
		return "M12 6.500v6.500M12 17v.01"
	case "expired":
		return "M8 8l8 8M16 8l-8 8"
	}
	return "M9.300 9.300a2.700 2.700 0 1 1 4.200 2.200c-1 .7-1.500 1.200-1.500 2.300M12 17.500v.01"
}
