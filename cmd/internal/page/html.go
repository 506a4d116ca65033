package page

import (
	"net/url"
	"strconv"

	g "maragu.dev/gomponents"
)

// The page is made in plain Go, and gomponents escapes every text and attribute.
// html/template would do, too, but it finds methods by their names: with it the
// linker has to keep every exported method of the whole program, which is two
// megabytes.

// html is the whole page.
func (v view) html() g.Node {
	return document(v.Words, v.Base, el("main", attr("id", "main"), class(v.Tone),
		v.header(),
		el("p", attr("id", "said"), attr("role", "status"), hidden(v.Said == ""), text(v.Said)),
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
	next := g.Group{text(w.NextRenewal + ": "), v.Next.html()}
	if v.NextName != "" {
		next = append(next, text(" ("+v.NextName+")"))
	}
	return el("header", class("verdict "+v.Tone),
		mark(v.Tone),
		el("div",
			el("p", class("brand"), text("Certsitter")),
			el("h1", attr("aria-live", "polite"), text(v.Verdict)),
			el("p", class("sub"),
				g.If(v.Next.Text != "", el("span", next)),
				g.If(v.Checked.Text != "", el("span", text(w.Checked+": "), v.Checked.html())),
			),
		),
		v.button("api/check", w.CheckSaid, attr("id", "check"), class("quiet"), text(w.CheckNow)),
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
	who := text(p.Name)
	if p.Anchor != "" {
		who = el("a", attr("href", "#"+url.PathEscape(p.Anchor)), who)
	}
	return el("article", class("problem "+p.Tone),
		mark(p.Tone),
		el("div",
			el("p", class("who"), who, text(" "), el("span", class("chip "+p.Tone), text(p.Word))),
			el("p", text(p.Text)),
			g.If(len(p.Details) > 0, el("ul", class("details"), items(p.Details))),
			g.If(p.Advice != "", el("p", class("advice"), el("b", text(w.WhatToDo)), text(" "+p.Advice))),
		),
	)
}

// certificates are a card each, or how to get the first one.
func (v view) certificates() g.Node {
	if len(v.Certificates) > 0 {
		return section("certificates", v.Words.Certificates,
			el("div", class("cards"), g.Map(v.Certificates, func(c card) g.Node { return c.html(v) })))
	}
	if !v.Ready || v.Refused { // who has tried already needs to hear what was wrong
		return nil
	}
	return section("setup", v.Words.Setup, el("ol", class("setup"), items(v.Words.SetupSteps[:])))
}

func (c card) html(v view) g.Node {
	return el("article", class("card "+c.Tone), attr("id", anchor(c.Name)), attr("data-name", c.Name), g.If(c.Renewing, g.Attr("data-renewing")),
		el("header",
			el("h3", text(c.Label), g.If(c.More > 0, g.Group{text(" "), el("small", text("+"+strconv.Itoa(c.More)))})),
			el("span", class("chip "+c.Tone), mark(c.Tone), text(c.Word)),
		),
		el("p", class("left"), g.If(c.Big != "", g.Group{el("b", text(c.Big)), text(" ")}), text(c.Unit)),
		c.lifetime(),
		c.facts(v.Words),
		c.notes(v.Words),
		el("div", class("run"), attr("aria-live", "polite"), hidden(!c.Renewing),
			el("p", text(v.Words.Renewing+" …")), el("ol", g.If(c.Step != "", el("li", text(c.Step))))),
		el("div", class("act"), c.buttons(v), c.details(v)),
	)
}

// lifetime is a bar of what is left of it.
func (c card) lifetime() g.Node {
	if c.LifeText == "" {
		return nil
	}
	return el("svg", class("life"), attr("role", "img"), attr("aria-label", c.LifeText), attr("viewBox", "0 0 100 4"), attr("preserveAspectRatio", "none"),
		el("rect", attr("width", strconv.Itoa(c.Life)), attr("height", "4")))
}

// facts are what is worth knowing without opening the details.
func (c card) facts(w words) g.Node {
	return el("dl",
		instant(c.End, c.Expires),
		fact(w.Issuer, c.Issuer),
		instant(w.Next, c.Next),
		wide(w.Served, plain(c.Served, func(s served) g.Node {
			return el("li", mark(s.Tone), el("span", text(s.Address+" "), el("small", text(s.Text))))
		})),
		g.If(c.Result != "", wide(w.Result, text(c.Result))),
	)
}

// notes are sentences about what goes on, and problems that are not urgent.
func (c card) notes(w words) g.Node {
	note := func(tone, said string) g.Node { return el("p", class("note "+tone), text(said)) }
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
			attr("id", "restart-"+c.Name), disabled(c.Restarting), text(w.RestartHome))),
		g.If(c.Managed, v.buttonWith("force", c.renewal(), w.RenewSaid,
			attr("id", "renew-"+c.Name), g.If(c.Asks, class("quiet")), disabled(c.Renewing), text(w.RenewNow))),
	}
}

// renewal is the address that renews the certificate.
func (c card) renewal() string { return "api/certificates/" + url.PathEscape(c.Name) + "/renew" }

func (c card) details(v view) g.Node {
	w := v.Words
	return el("details", attr("id", "more-"+c.Name), el("summary", text(w.Details)),
		el("dl",
			el("dt", text(c.Name)), el("dd", text(c.Source)),
			wide(w.Names, plain(c.Names, func(n name) g.Node {
				return el("li", el("span", text(n.Text), g.If(n.Lacks, g.Group{text(" "), el("small", class("warning"), text(w.Lacks))})))
			})),
			instant(w.ValidFrom, c.From),
			instant(w.Renewed, c.Renewed),
			wide(w.Files, plain(c.Files, func(file string) g.Node { return el("li", el("code", text(file))) })),
			fact(w.Key, c.Key),
			g.If(c.Print != "", wide(w.Print, el("code", text(c.Print)))),
		),
		g.If(c.Failures != "", el("p", text(c.Failures))),
		g.If(c.Managed, v.buttonWith("dry_run", c.renewal(), w.TestSaid,
			attr("id", "test-"+c.Name), class("quiet"), disabled(c.Renewing), text(w.TestRenewal))),
	)
}

// messages are where they go, and how the broker is.
func (v view) messages() g.Node {
	if !v.Ready {
		return nil
	}
	w := v.Words
	targets := g.Group{el("p", text(w.NoTargets))}
	if len(v.Targets) > 0 {
		targets = g.Group{
			plain(v.Targets, func(t target) g.Node { return t.html(w) }),
			v.button("api/notify/test", w.TestMessageSaid, attr("id", "notify"), class("quiet"), text(w.SendTest)),
		}
	}
	return el("section", class("below"), attr("aria-labelledby", "messages"),
		el("div", el("h2", attr("id", "messages"), text(w.Messages)), targets),
		el("div", el("h2", text(w.Broker)), el("ul", class("plain"), v.MQTT.html())),
	)
}

func (t target) html(w words) g.Node {
	since := t.Since.Text != "" && t.Tone != "ok"
	return el("li", mark(t.Tone), el("span",
		el("b", text(t.Name)), text(" "+t.Word),
		g.If(since, g.Group{text(" " + w.Since + " "), t.Since.html()}),
		under(t.Error),
	))
}

func (b broker) html() g.Node {
	return el("li", mark(b.Tone), el("span", text(b.Word), under(b.URL), under(b.Error)))
}

// downloads are files for other programs.
func (v view) downloads() g.Node {
	if len(v.Downloads) == 0 {
		return nil
	}
	return el("section", class("below"), attr("aria-labelledby", "downloads"),
		el("div",
			el("h2", attr("id", "downloads"), text(v.Words.Downloads)),
			el("ul", class("plain files"), g.Map(v.Downloads, func(d Download) g.Node { return d.html(v.Words) })),
		),
	)
}

func (d Download) html(w words) g.Node {
	address := "files/" + url.PathEscape(d.Name)
	copies := el("button", attr("type", "button"), attr("id", "copy-"+d.Name), class("quiet"), hidden(true), // but for the script
		attr("data-copy", address), attr("data-copied", w.Copied), attr("data-by-hand", w.CopyByHand), attr("data-close", w.Close), text(w.Copy))
	return el("li",
		el("a", attr("href", address), attr("download", d.Name), text(d.Title)), text(" "), el("small", text(d.Name)),
		g.If(d.Copy, g.Group{text(" "), copies}),
	)
}

func (v view) footer() g.Node {
	return el("footer",
		g.If(!v.MayAct, el("p", text(v.Words.Mute))),
		el("p", text("Certsitter "+v.Version+" · "), el("a", attr("href", "api/state"), text("JSON")), text(" · "), el("a", attr("href", "metrics"), text("Prometheus"))),
	)
}

// refusal is the page that says why something was not done.
type refusal struct {
	Words             words
	Base, Title, Text string
	Until             moment // when it may be tried again
}

func (r refusal) html() g.Node {
	return document(r.Words, r.Base, el("main",
		el("header", class("verdict warning"),
			mark("warning"),
			el("div",
				el("p", class("brand"), text("Certsitter")),
				el("h1", text(r.Title)),
				el("p", text(r.Text)),
				g.If(r.Until.Text != "", el("p", text(r.Words.Until+" "), r.Until.html())),
				el("p", el("a", attr("href", "./"), text(r.Words.Back))),
			),
		),
	))
}

// document puts a page around main. All its links are relative to base; "" =
// to where the page is.
func document(w words, base string, main g.Node) g.Node {
	return g.Group{g.Raw("<!doctype html>"), el("html", attr("lang", w.Lang),
		el("head",
			el("meta", attr("charset", "utf-8")),
			el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
			el("meta", attr("name", "color-scheme"), attr("content", "light dark")),
			el("title", text("Certsitter")),
			g.If(base != "", el("base", attr("href", base))),
			el("link", attr("rel", "icon"), attr("href", "icon.svg"), attr("type", "image/svg+xml")),
			el("link", attr("rel", "stylesheet"), attr("href", "page.css")),
			el("script", attr("src", "page.js"), g.Attr("defer")),
		),
		el("body", main),
	)}
}

func section(id, title string, content g.Node) g.Node {
	return el("section", attr("aria-labelledby", id), el("h2", attr("id", id), text(title)), content)
}

// button is one that asks for something, and that says said when it was done;
// nil for those who would not be listened to.
func (v view) button(action, said string, content ...g.Node) g.Node {
	return v.form(action, said, el("button", content...))
}

// buttonWith says besides that an option is wanted.
func (v view) buttonWith(option, action, said string, content ...g.Node) g.Node {
	return v.form(action, said, el("input", attr("type", "hidden"), attr("name", option), attr("value", "1")), el("button", content...))
}

func (v view) form(action, said string, content ...g.Node) g.Node {
	if !v.MayAct {
		return nil
	}
	return el("form", attr("method", "post"), attr("action", action), attr("data-said", said), g.Group(content))
}

// fact is a line of a card; nil without a value.
func fact(title, value string) g.Node {
	return g.If(value != "", g.Group{el("dt", text(title)), el("dd", text(value))})
}

func instant(title string, m moment) g.Node {
	return g.If(m.Text != "", g.Group{el("dt", text(title)), el("dd", m.html())})
}

// wide is a fact that needs a line of its own; nil without a value.
func wide(title string, value g.Node) g.Node {
	return g.If(value != nil, g.Group{el("dt", class("wide"), text(title)), el("dd", class("wide"), value)})
}

// plain is a list without bullets; nil without an item.
func plain[T any](all []T, item func(T) g.Node) g.Node {
	return g.If(len(all) > 0, el("ul", class("plain"), g.Map(all, item)))
}

func items(texts []string) g.Node {
	return g.Map(texts, func(t string) g.Node { return el("li", text(t)) })
}

// under is a line in small letters; nil for none.
func under(line string) g.Node {
	return g.If(line != "", g.Group{el("br"), el("small", text(line))})
}

// el, attr and text are gomponents' own, but that they stay out of line: its
// functions are closures, of which the compiler would put a copy into each place
// that calls them, a third of a megabyte in all.
//
//go:noinline
func el(name string, children ...g.Node) g.Node { return g.El(name, children...) }

//go:noinline
func attr(name, value string) g.Node { return g.Attr(name, value) }

//go:noinline
func text(t string) g.Node { return g.Text(t) }

func class(names string) g.Node { return attr("class", names) }
func hidden(is bool) g.Node     { return g.If(is, g.Attr("hidden")) }
func disabled(is bool) g.Node   { return g.If(is, g.Attr("disabled")) }

func (m moment) html() g.Node {
	return el("time", attr("datetime", m.Machine), attr("title", m.Machine), text(m.Text))
}

// mark is a status as a sign in a circle. Words beside it say the same.
func mark(tone string) g.Node {
	return el("svg", class("mark "+tone), attr("viewBox", "0 0 24 24"), attr("aria-hidden", "true"),
		el("circle", attr("cx", "12"), attr("cy", "12"), attr("r", "11")),
		el("path", attr("d", glyph(tone))))
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
