package settings

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestDroppedKeys(t *testing.T) {
	for name, c := range map[string]struct{ typed, handed, want string }{
		"nothing":           {`{"email":"a@example.org"}`, `{"email":"a@example.org"}`, ""},
		"at the top":        {`{"emial":"s3cret-a","language":"de"}`, `{"language":"de"}`, "emial (email)"},
		"nothing like it":   {`{"colour":"s3cret-b"}`, `{}`, "colour ()"},
		"not offered":       {`{"listen":":80"}`, `{}`, "listen ()"},
		"in a section":      {`{"mqtt":{"borker":"s3cret-c","topic":"x"}}`, `{"mqtt":{"topic":"x"}}`, "mqtt.borker (broker)"},
		"a whole section":   {`{"mqqt":{"broker":"s3cret-d"}}`, `{}`, "mqqt (mqtt)"},
		"items by name":     {`{"certificates":[{"name":"a","cert_file":"s3cret"},{"name":"b"}]}`, `{"certificates":[{"name":"b"},{"name":"a"}]}`, "certificates[a].cert_file (certfile)"},
		"items by place":    {`{"watch":[{"name":"Not Good","sources":"s3cret"}]}`, `{"watch":[{"name":"Not Good"}]}`, "watch[0].sources (source)"},
		"an item is gone":   {`{"watch":[{"name":"a"},{"name":"b"}]}`, `{"watch":[{"name":"a"}]}`, ""},
		"another type":      {`{"mqtt":{"a":1},"watch":[{"name":"a"}],"certificates":["x"]}`, `{"mqtt":[],"watch":{},"certificates":["x"]}`, ""},
		"a secret as a key": {`{"token s3cret":"x"}`, `{}`, "… ()"},
		"no JSON":           {`{`, `{}`, ""},
		"no object":         {`[]`, `{}`, ""},
		"several":           {`{"zz":1,"certificates":[{"name":"a","wbroot":"x","domain":["y"]}]}`, `{"certificates":[{"name":"a"}]}`, "certificates[a].domain (domains) certificates[a].wbroot (webroot) zz ()"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			for _, d := range DroppedKeys([]byte(c.typed), []byte(c.handed)) {
				found = append(found, fmt.Sprintf("%s (%s)", d.Key, d.Meant))
			}
			got := strings.Join(found, " ")
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if strings.Contains(got, "s3cret") {
				t.Errorf("a value is shown: %s", got)
			}
		})
	}
}

func FuzzDroppedKeys(f *testing.F) {
	f.Add(`{"certificates":[{"name":"a","cert_file":"x"}]}`, `{"certificates":[{"name":"a"}]}`)
	f.Add(`{"mqtt":{"borker":1}}`, `{"mqtt":{}}`)
	f.Fuzz(func(t *testing.T, typed, handed string) {
		for _, d := range DroppedKeys([]byte(typed), []byte(handed)) {
			if d.Key == "" || strings.ContainsAny(d.Key, " \n\"") {
				t.Errorf("key %q", d.Key)
			}
		}
		if same := DroppedKeys([]byte(typed), []byte(typed)); same != nil {
			t.Errorf("against itself: %v", same)
		}
	})
}

// The image and the app have the same folders, and both can be run below another
// root.
func TestDefaultsInTheImage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		e    Environment
		file string
		want string
	}{
		"image":          {Environment{Image: true, Stat: only("/config/certsitter.yaml")}, "/config/certsitter.yaml", "/data /ssl :8099 http-01"},
		"app":            {Environment{App: true, Image: true}, "/data/options.json", "/data /ssl :8099 "},
		"a root":         {Environment{App: true, Root: "/tmp/x"}, "/tmp/x/data/options.json", "/tmp/x/data /tmp/x/ssl :8099 "},
		"neither":        {Environment{Stat: only("/etc/certsitter/certsitter.yaml")}, "/etc/certsitter/certsitter.yaml", "/var/lib/certsitter  127.0.0.1:8099 http-01"},
		"image, no file": {Environment{Image: true, Stat: only("")}, "/config/certsitter.yaml", "/data /ssl :8099 http-01"},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.e.defaults()
			if got := strings.Join([]string{d.stateDir, d.sslDir, d.listen, d.challenge}, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := Find("", c.e); got != c.file {
				t.Errorf("the file is %s, want %s", got, c.file)
			}
		})
	}
}

// only one file is there.
func only(path string) func(string) (fs.FileInfo, error) {
	return func(asked string) (fs.FileInfo, error) {
		if asked == path {
			return nil, nil
		}
		return nil, fs.ErrNotExist
	}
}
