package shout

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of a message. Telegram counts bytes (4,096), the others characters
// (Discord 2,000).
const (
	maxTitle     = 80
	maxBody      = 1500 // characters
	maxBodyBytes = 3500
)

// oneLine makes a title of any text: no line breaks, which would be headers of
// their own in a mail, no control characters, at most 80 characters.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return cut(strings.Join(strings.Fields(text), " "), maxTitle)
}

// shorten keeps a body within what every service takes. It keeps its lines.
func shorten(body string) string {
	body = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(body, ""))
	body = cut(strings.TrimSpace(body), maxBody)
	for len(body) > maxBodyBytes {
		body = cut(body, utf8.RuneCountInString(body)*maxBodyBytes/len(body))
	}
	return body
}

// cut shortens a text to a number of characters.
func cut(text string, limit int) string {
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return strings.TrimSpace(string([]rune(text)[:limit-1])) + "…"
}

// latin is how letters are written that ASCII does not have.
var latin = strings.NewReplacer(
	"ä", "ae", "ö", "oe", "ü", "ue", "Ä", "Ae", "Ö", "Oe", "Ü", "Ue", "ß", "ss", "ẞ", "SS",
	"æ", "ae", "Æ", "AE", "œ", "oe", "Œ", "OE", "ø", "o", "Ø", "O", "å", "a", "Å", "A", "ł", "l", "Ł", "L",
	"á", "a", "à", "a", "â", "a", "ã", "a", "ā", "a", "ă", "a", "ą", "a", "Á", "A", "À", "A", "Â", "A", "Ã", "A",
	"é", "e", "è", "e", "ê", "e", "ë", "e", "ē", "e", "ę", "e", "ě", "e", "É", "E", "È", "E", "Ê", "E", "Ë", "E",
	"í", "i", "ì", "i", "î", "i", "ï", "i", "ī", "i", "ı", "i", "Í", "I", "Î", "I", "Ï", "I", "İ", "I",
	"ó", "o", "ò", "o", "ô", "o", "õ", "o", "ő", "o", "Ó", "O", "Ò", "O", "Ô", "O", "Õ", "O",
	"ú", "u", "ù", "u", "û", "u", "ů", "u", "ű", "u", "ū", "u", "Ú", "U", "Ù", "U", "Û", "U",
	"ç", "c", "ć", "c", "č", "c", "Ç", "C", "Č", "C", "ñ", "n", "ń", "n", "ň", "n", "Ñ", "N",
	"ś", "s", "š", "s", "ş", "s", "Š", "S", "ź", "z", "ż", "z", "ž", "z", "Ž", "Z",
	"ř", "r", "ť", "t", "ď", "d", "đ", "d", "ð", "d", "þ", "th", "ğ", "g", "ý", "y", "ÿ", "y",
	"–", "-", "—", "-", "‘", "'", "’", "'", "“", `"`, "”", `"`, "„", `"`, "…", "...", "€", "EUR", "→", "->", "·", "-",
)

// ascii writes a title in ASCII: it becomes an HTTP or a mail header, which
// shoutrrr does not encode.
func ascii(title string) string {
	title = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII {
			return '?'
		}
		return r
	}, latin.Replace(title))
	return title[:min(len(title), maxTitle)]
}
