package sitter

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

// askWords are what is asked of people, in one language.
type askWords struct {
	restartTitle  string
	restartText   string // name, address, until
	restartPast   string // the same once it has expired
	restartAdvice string
	inVain        string

	refusedTitle string
	refusedOld   string // what happened
	refusedNone  string // the same where nothing is in force
	refusedDo    string

	date func(time.Time) string
}

var askLanguages = map[string]askWords{
	"en": {
		restartTitle: "Home Assistant still uses the old certificate",
		restartText:  "The certificate of %s is renewed and in its place. Home Assistant reads it only when it starts, so %s still serves the earlier one, which is good until %s.",
		restartPast:  "The certificate of %s is renewed and in its place. Home Assistant reads it only when it starts, so %s still serves the earlier one, which expired on %s: browsers and apps refuse it.",
		restartAdvice: "Restart Home Assistant when it suits you: with the button “Restart Home Assistant” on Certsitter's page, or under Settings → System → Restart. " +
			"With after: [\"restart homeassistant\"] at this certificate, Certsitter does it by itself next time.",
		inVain: "Home Assistant was restarted and still serves the earlier certificate. Look whether its SSL/TLS settings (Settings → System → Network → HTTP server; before 2026.8 ssl_certificate and ssl_key in configuration.yaml) name the files of this certificate.",

		refusedTitle: "Certsitter's configuration was refused",
		refusedOld:   "The configuration is not used. What was in force before stays in force.",
		refusedNone:  "The configuration is not used, and there is no earlier one: no certificate is looked after until it is corrected.",
		refusedDo:    "Correct it and save it, then restart Certsitter.",

		date: func(t time.Time) string { return t.Format("2 January 2006") },
	},
	"de": {
		restartTitle: "Home Assistant benutzt noch das alte Zertifikat",
		restartText:  "Das Zertifikat von %s ist erneuert und liegt an seinem Platz. Home Assistant liest es nur beim Start, deshalb liefert %s noch das alte aus, das bis zum %s gilt.",
		restartPast:  "Das Zertifikat von %s ist erneuert und liegt an seinem Platz. Home Assistant liest es nur beim Start, deshalb liefert %s noch das alte aus, das am %s abgelaufen ist: Browser und Apps lehnen es ab.",
		restartAdvice: "Starte Home Assistant neu, wenn es dir passt: mit dem Knopf „Home Assistant neu starten“ auf Certsitters Seite oder unter Einstellungen → System → Neu starten. " +
			"Mit after: [\"restart homeassistant\"] bei diesem Zertifikat macht Certsitter es beim nächsten Mal selbst.",
		inVain: "Home Assistant ist neu gestartet und liefert noch immer das alte Zertifikat aus. Sieh nach, ob seine SSL/TLS-Einstellungen (Einstellungen → System → Netzwerk → HTTP-Server; vor 2026.8 ssl_certificate und ssl_key in configuration.yaml) die Dateien dieses Zertifikats nennen.",

		refusedTitle: "Die Konfiguration von Certsitter wurde abgelehnt",
		refusedOld:   "Die Konfiguration wird nicht benutzt. Was vorher galt, gilt weiter.",
		refusedNone:  "Die Konfiguration wird nicht benutzt, und eine frühere gibt es nicht: Bis sie berichtigt ist, wird kein Zertifikat betreut.",
		refusedDo:    "Berichtige und speichere sie, dann starte Certsitter neu.",

		date: func(t time.Time) string { return t.Format("02.01.2006") },
	},
}

func (s *Sitter) askWords() askWords {
	if words, known := askLanguages[s.settings.Language]; known {
		return words
	}
	return askLanguages["en"]
}

// restarts: an action of the configuration restarts Home Assistant.
func (j *job) restarts() bool { return slices.Contains(j.actions, restartCore) }

// attended adds to what was seen at an address what makes Core take the new
// certificate, if it is Core's own and no action restarts it.
func (s *Sitter) attended(j *job, served expiry.Served) expiry.Served {
	at, seen := s.coreOf(j)
	if seen == nil || at != served.Address || !s.core.api || j.restarts() {
		return served
	}
	served.Attended, served.Advice = true, s.askWords().restartAdvice
	if seen.inVain() {
		served.Advice = s.askWords().inVain
	}
	return served
}

// inVain: what serves it was restarted, and serves an earlier one all the same.
func (s *sighting) inVain() bool {
	return !s.Restarted.IsZero() && s.Seen.Sub(s.Restarted) >= inVain
}

// asksRestart: Core serves an earlier certificate of the job, no action restarts
// it, and a restart would help. seen is what it serves.
func (s *Sitter) asksRestart(now time.Time, j *job) (served expiry.Served, asks bool) {
	at, seen := s.coreOf(j)
	if seen == nil || !s.core.api || j.restarts() || seen.inVain() || j.installed == nil {
		return served, false
	}
	if d := s.memory.of(j.name).Deployment; d != nil {
		if d.Stage == toInstall || d.Stage == toAct {
			return served, false // it goes on by itself
		}
		if settled := d.EndedAt.Add(settle); now.Before(settled) {
			s.at(settled)
			return served, false
		}
	}
	served = s.served(j.name, at, j.installed)
	return served, served.Certificate != nil && served.Known && !served.Same
}

// asked are the certificates for whose sake Home Assistant is to be restarted.
func (s *Sitter) asked(now time.Time) (names []string) {
	for _, j := range s.jobs {
		if _, asks := s.asksRestart(now, j); asks {
			names = append(names, j.name)
		}
	}
	return names
}

// asks are what people are asked now.
func (s *Sitter) asks(now time.Time) []Ask {
	all, words := []Ask{}, s.askWords()
	for _, p := range s.notes {
		if p.Code == codeRefused {
			all = append(all, Ask{ID: AskConfiguration, Title: words.refusedTitle, Text: s.refusedText(words, p)})
		}
	}
	for _, j := range s.jobs {
		served, asks := s.asksRestart(now, j)
		if !asks {
			continue
		}
		form := words.restartText
		if served.Certificate.Left(now) <= 0 {
			form = words.restartPast
		}
		until := words.date(served.Certificate.Leaf.NotAfter.In(s.zone()))
		all = append(all, Ask{ID: AskRestart(j.name), Title: words.restartTitle,
			Text: fmt.Sprintf(form, j.label, served.Address, until) + "\n\n" + words.restartAdvice})
	}
	return all
}

// refusedText is one mistake a line, between what happened and what to do.
func (s *Sitter) refusedText(words askWords, p Problem) string {
	var text strings.Builder
	what := words.refusedOld
	if len(s.jobs)+len(s.watched) == 0 {
		what = words.refusedNone
	}
	text.WriteString(what + "\n\n")
	for _, mistake := range p.Details {
		text.WriteString("- " + strings.Join(strings.Fields(mistake), " ") + "\n")
	}
	return text.String() + "\n" + words.refusedDo
}

// zone is the one of the times that people are told.
func (s *Sitter) zone() *time.Location {
	if s.settings.Location == nil {
		return time.Local
	}
	return s.settings.Location
}
