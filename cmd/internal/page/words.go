package page

// words is every text of ours on the page, in one language. A field that one
// language lacks fails a test.
type words struct {
	Lang string

	// the verdict
	None, Looking              string
	AllFineOne, AllFineMany    string // many: number
	NeedOne                    string // the only one
	NeedSome, NeedSomeOne      string // number, of; of
	ServiceNeeds               string
	NextRenewal, Checked       string
	CheckNow, CheckSaid        string
	Setup                      string
	SetupSteps                 [3]string
	Problems, WhatToDo, Itself string
	MessagesDead               string // target, error
	MessagesRetrying           string
	MessagesAdvice             string
	RefusedConf, RefusedNone   string // a refused configuration; where none is in force
	RefusedOld, RefusedAdvice  string

	// a certificate
	Certificates                                         string
	Status                                               map[string]string
	DayLeft, DaysLeft, HoursLeft, MinutesLeft            string
	DayOver, DaysOver, HoursOver, MinutesOver            string
	NoDate                                               string
	Expires, Expired, Issuer, Renewed, Next, Result      string
	Served                                               string
	Verdict                                              map[string]string
	RenewNow, RenewSaid, TestRenewal, TestSaid, Renewing string
	Details, Names, Files, Key, Print, ValidFrom, Lacks  string
	Source                                               map[string]string
	Failures                                             string // number
	LifeLeft                                             string // percent
	RestartHome, RestartSaid, Restarting                 string

	// below
	Messages, NoTargets, SendTest, TestMessageSaid, Since string
	Target                                                map[string]string
	Broker, BrokerOff, BrokerOn, BrokerLost               string
	Mute                                                  string // why there are no buttons
	Downloads, Copy, Copied, CopyByHand, Close            string

	// answers
	Done                                            map[string]string
	Back, Refused, NotNow, Until                    string
	DeniedAddress, DeniedHost, DeniedOrigin         string
	DeniedNoPassword, DeniedPassword, DeniedGuesses string
	Starting, Busy, Undelivered, NoMessage          string
}

// wordsIn returns the texts of a language, English where it has none.
func wordsIn(language string) words {
	if language == "de" {
		return german()
	}
	return english()
}

func english() words {
	return words{
		Lang:             "en",
		None:             "No certificate is configured yet.",
		Looking:          "Looking at the certificates …",
		AllFineOne:       "Your certificate is fine.",
		AllFineMany:      "All %d certificates are fine.",
		NeedOne:          "Your certificate needs attention.",
		NeedSome:         "%d of %d certificates need attention.",
		NeedSomeOne:      "1 of %d certificates needs attention.",
		ServiceNeeds:     "The certificates are fine. Certsitter itself needs attention.",
		NextRenewal:      "Next renewal",
		Checked:          "Checked",
		CheckNow:         "Check now",
		CheckSaid:        "Everything has been looked at.",
		Setup:            "Three steps to the first certificate",
		SetupSteps:       [3]string{"Add a certificate under “certificates” in the configuration: a name, its domains and how you prove that they are yours.", "To see certificates that somebody else renews, add them under “watch”.", "Save and restart Certsitter. This page then shows what it does."},
		Problems:         "What needs attention",
		WhatToDo:         "What to do:",
		Itself:           "Certsitter",
		MessagesDead:     "Messages to %s no longer arrive: %s",
		MessagesRetrying: "Messages to %s are delayed: %s",
		MessagesAdvice:   "Check this address under “notify” or “notify_services” in the configuration, then send a test message.",
		RefusedConf:      "The configuration was refused and is not used.",
		RefusedOld:       "What was in force before stays in force.",
		RefusedNone:      "The configuration was refused. No certificate is looked after.",
		RefusedAdvice:    "Correct this in the configuration and save it, then restart Certsitter.",

		Certificates: "Certificates",
		Status:       map[string]string{"ok": "fine", "notice": "notice", "warning": "warning", "critical": "critical", "expired": "expired", "unknown": "unknown"},
		DayLeft:      "day left", DaysLeft: "days left", HoursLeft: "hours left", MinutesLeft: "minutes left",
		DayOver: "day past its end", DaysOver: "days past its end", HoursOver: "hours past its end", MinutesOver: "minutes past its end",
		NoDate:  "no certificate known",
		Expires: "Expires", Expired: "Expired", Issuer: "Issued by", Renewed: "Last renewal", Next: "Next renewal", Result: "Result",
		Served:   "Served at",
		Verdict:  map[string]string{"same": "this certificate", "stale": "still an old certificate", "foreign": "another certificate", "unreachable": "cannot be reached", "": "not looked at yet"},
		RenewNow: "Renew now", RenewSaid: "The renewal has been asked for.", TestRenewal: "Test a renewal", TestSaid: "The test has been asked for. The files in use stay as they are.", Renewing: "Renewing",
		Details: "Details", Names: "Names", Files: "Files", Key: "Key", Print: "SHA-256", ValidFrom: "Valid from", Lacks: "not in the certificate",
		Source:   map[string]string{"managed": "renewed here", "file": "watched file", "endpoint": "watched server"},
		Failures: "Failed attempts in a row: %d",
		LifeLeft: "%d percent of its lifetime left",

		RestartHome: "Restart Home Assistant", RestartSaid: "Home Assistant is being restarted. That takes a minute or more, and this page may be gone meanwhile.", Restarting: "Home Assistant is being restarted …",

		Messages: "Messages", NoTargets: "Nobody is told about problems: no notification is configured.", SendTest: "Send a test message", TestMessageSaid: "The test message has been delivered.", Since: "since",
		Target: map[string]string{"ok": "ready", "retrying": "delayed", "dead": "not delivered"},
		Broker: "MQTT", BrokerOff: "not configured", BrokerOn: "connected", BrokerLost: "not connected",
		Mute:      "The buttons work from the machine that Certsitter runs on. For buttons from here, set page_password in the configuration.",
		Downloads: "For your dashboards and openHAB", Copy: "Copy", Copied: "Copied.", CopyByHand: "Copy the selected text: Ctrl+C, or Cmd+C on a Mac.", Close: "Close",

		Done: map[string]string{"renew": "The renewal has been asked for.", "check": "Everything has been looked at.", "notify": "The test message has been delivered.", "restart": "Home Assistant is being restarted."},
		Back: "Back to the page", Refused: "This was not done.", NotNow: "Not now.", Until: "Possible again from",
		DeniedAddress:    "As a Home Assistant app, Certsitter answers through Home Assistant only. Open it from the sidebar.",
		DeniedHost:       "Certsitter does not know itself by this name. Use its IP address, localhost, or a name that ends in .local, .lan or .home.arpa.",
		DeniedOrigin:     "This request came from another site and was not carried out. Open Certsitter's own page and press the button there.",
		DeniedNoPassword: "Commands from other machines need a password, and none is set. Set page_password in the configuration.",
		DeniedPassword:   "Commands from other machines need the page_password of the configuration. The user name does not matter.",
		DeniedGuesses:    "Too many wrong passwords from this address. Wait before the next try.",
		Starting:         "Certsitter is starting and has not looked at anything yet. Try again in a few seconds.",
		Busy:             "Certsitter did not answer in time. Try again in a minute.",
		Undelivered:      "Not delivered to %s: %s",
		NoMessage:        "No notification is configured, so no message was sent.",
	}
}

func german() words {
	return words{
		Lang:             "de",
		None:             "Noch ist kein Zertifikat eingerichtet.",
		Looking:          "Die Zertifikate werden gerade angesehen …",
		AllFineOne:       "Das Zertifikat ist in Ordnung.",
		AllFineMany:      "Alle %d Zertifikate sind in Ordnung.",
		NeedOne:          "Das Zertifikat braucht Aufmerksamkeit.",
		NeedSome:         "%d von %d Zertifikaten brauchen Aufmerksamkeit.",
		NeedSomeOne:      "1 von %d Zertifikaten braucht Aufmerksamkeit.",
		ServiceNeeds:     "Die Zertifikate sind in Ordnung. Certsitter selbst braucht Aufmerksamkeit.",
		NextRenewal:      "Nächste Erneuerung",
		Checked:          "Geprüft",
		CheckNow:         "Jetzt prüfen",
		CheckSaid:        "Alles ist angesehen.",
		Setup:            "Drei Schritte zum ersten Zertifikat",
		SetupSteps:       [3]string{"Trage unter „certificates“ in der Konfiguration ein Zertifikat ein: einen Namen, seine Domains und womit du zeigst, dass sie dir gehören.", "Zertifikate, die jemand anderes erneuert, trägst du unter „watch“ ein.", "Speichere und starte Certsitter neu. Diese Seite zeigt dann, was geschieht."},
		Problems:         "Das braucht Aufmerksamkeit",
		WhatToDo:         "Was zu tun ist:",
		Itself:           "Certsitter",
		MessagesDead:     "Nachrichten an %s kommen nicht mehr an: %s",
		MessagesRetrying: "Nachrichten an %s verspäten sich: %s",
		MessagesAdvice:   "Prüfe diese Adresse unter „notify“ oder „notify_services“ in der Konfiguration und sende dann eine Testnachricht.",
		RefusedConf:      "Die Konfiguration wurde abgelehnt und wird nicht benutzt.",
		RefusedOld:       "Was vorher galt, gilt weiter.",
		RefusedNone:      "Die Konfiguration wurde abgelehnt. Solange wird kein Zertifikat betreut.",
		RefusedAdvice:    "Berichtige das in der Konfiguration und speichere sie, dann starte Certsitter neu.",

		Certificates: "Zertifikate",
		Status:       map[string]string{"ok": "in Ordnung", "notice": "Hinweis", "warning": "Warnung", "critical": "kritisch", "expired": "abgelaufen", "unknown": "unbekannt"},
		DayLeft:      "Tag übrig", DaysLeft: "Tage übrig", HoursLeft: "Stunden übrig", MinutesLeft: "Minuten übrig",
		DayOver: "Tag abgelaufen", DaysOver: "Tage abgelaufen", HoursOver: "Stunden abgelaufen", MinutesOver: "Minuten abgelaufen",
		NoDate:  "kein Zertifikat bekannt",
		Expires: "Läuft ab", Expired: "Abgelaufen", Issuer: "Ausgestellt von", Renewed: "Letzte Erneuerung", Next: "Nächste Erneuerung", Result: "Ergebnis",
		Served:   "Ausgeliefert von",
		Verdict:  map[string]string{"same": "dieses Zertifikat", "stale": "noch ein altes Zertifikat", "foreign": "ein anderes Zertifikat", "unreachable": "nicht erreichbar", "": "noch nicht angesehen"},
		RenewNow: "Jetzt erneuern", RenewSaid: "Die Erneuerung ist angefordert.", TestRenewal: "Erneuerung testen", TestSaid: "Der Test ist angefordert. Die benutzten Dateien bleiben, wie sie sind.", Renewing: "Wird erneuert",
		Details: "Einzelheiten", Names: "Namen", Files: "Dateien", Key: "Schlüssel", Print: "SHA-256", ValidFrom: "Gültig ab", Lacks: "nicht im Zertifikat",
		Source:   map[string]string{"managed": "wird hier erneuert", "file": "beobachtete Datei", "endpoint": "beobachteter Server"},
		Failures: "Fehlversuche in Folge: %d",
		LifeLeft: "%d Prozent der Laufzeit übrig",

		RestartHome: "Home Assistant neu starten", RestartSaid: "Home Assistant wird neu gestartet. Das dauert eine Minute oder länger, und diese Seite ist solange vielleicht weg.", Restarting: "Home Assistant wird neu gestartet …",

		Messages: "Nachrichten", NoTargets: "Niemand erfährt von Problemen: Es ist keine Benachrichtigung eingerichtet.", SendTest: "Testnachricht senden", TestMessageSaid: "Die Testnachricht ist angekommen.", Since: "seit",
		Target: map[string]string{"ok": "bereit", "retrying": "verspätet", "dead": "nicht zugestellt"},
		Broker: "MQTT", BrokerOff: "nicht eingerichtet", BrokerOn: "verbunden", BrokerLost: "nicht verbunden",
		Mute:      "Die Knöpfe gehen auf dem Rechner, auf dem Certsitter läuft. Für Knöpfe von hier aus setze page_password in der Konfiguration.",
		Downloads: "Für Dashboards und openHAB", Copy: "Kopieren", Copied: "Kopiert.", CopyByHand: "Kopiere den markierten Text: Strg+C, auf dem Mac Cmd+C.", Close: "Schließen",

		Done: map[string]string{"renew": "Die Erneuerung ist angefordert.", "check": "Alles ist angesehen.", "notify": "Die Testnachricht ist angekommen.", "restart": "Home Assistant wird neu gestartet."},
		Back: "Zurück zur Seite", Refused: "Das wurde nicht ausgeführt.", NotNow: "Jetzt nicht.", Until: "Wieder möglich ab",
		DeniedAddress:    "Als Home-Assistant-App antwortet Certsitter nur über Home Assistant. Öffne es in der Seitenleiste.",
		DeniedHost:       "Unter diesem Namen kennt Certsitter sich nicht. Nimm seine IP-Adresse, localhost oder einen Namen, der auf .local, .lan oder .home.arpa endet.",
		DeniedOrigin:     "Diese Anfrage kam von einer anderen Seite und wurde nicht ausgeführt. Öffne Certsitters eigene Seite und drücke den Knopf dort.",
		DeniedNoPassword: "Befehle von anderen Rechnern brauchen ein Passwort, und es ist keines gesetzt. Setze page_password in der Konfiguration.",
		DeniedPassword:   "Befehle von anderen Rechnern brauchen das page_password der Konfiguration. Der Benutzername ist gleich.",
		DeniedGuesses:    "Zu viele falsche Passwörter von dieser Adresse. Warte vor dem nächsten Versuch.",
		Starting:         "Certsitter startet und hat noch nichts angesehen. Versuche es in ein paar Sekunden wieder.",
		Busy:             "Certsitter hat nicht rechtzeitig geantwortet. Versuche es in einer Minute wieder.",
		Undelivered:      "Nicht zugestellt an %s: %s",
		NoMessage:        "Es ist keine Benachrichtigung eingerichtet, also wurde keine Nachricht gesendet.",
	}
}
