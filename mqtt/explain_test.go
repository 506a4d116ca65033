package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// What a real broker provokes is tested with real ones; here is the rest.
func TestExplain(t *testing.T) {
	dialing := func(err error) error {
		return fmt.Errorf("%w : %w", packets.ErrorNetworkError, &net.OpError{Op: "dial", Net: "tcp", Err: err})
	}
	for _, c := range []struct {
		broker string
		err    error
		want   string
	}{
		{"tcp://nowhere.lan", dialing(&net.DNSError{Err: "no such host", Name: "nowhere.lan", IsNotFound: true}), `The name "nowhere.lan" cannot be found. Check mqtt.broker`},
		{"tcp://m.lan", dialing(&net.DNSError{Err: "i/o timeout", Name: "m.lan", IsTimeout: true}), "No answer came from m.lan:1883 within 10 seconds."},
		{"tcp://m.lan", dialing(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "Nothing listens at m.lan:1883."},
		{"tcp://m.lan", dialing(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), "There is no way to m.lan:1883 in the network."},
		{"tcp://m.lan", dialing(os.NewSyscallError("connect", syscall.ENETUNREACH)), "There is no way to m.lan:1883: the network is not there."},
		{"tcp://m.lan", dialing(os.ErrDeadlineExceeded), "No answer came from m.lan:1883 within 10 seconds."},
		{"tcp://m.lan", errNoAnswer, "No answer came from m.lan:1883 within 10 seconds."},
		{"tcp://m.lan", context.DeadlineExceeded, "No answer came from m.lan:1883 within 10 seconds."},
		{"tcp://me:secret@m.lan", packets.ErrorRefusedNotAuthorised, `User name or password are not accepted by the broker at m.lan:1883. Check mqtt.username ("me")`},
		{"tcp://me:secret@m.lan", packets.ErrorRefusedBadUsernameOrPassword, "User name or password are not accepted"},
		{"tcp://m.lan", packets.ErrorRefusedNotAuthorised, "The login without a user name is not accepted by the broker at m.lan:1883."},
		{"tcp://m.lan", packets.ErrorRefusedIDRejected, "Our client id is refused by the broker at m.lan:1883."},
		{"tcp://m.lan", packets.ErrorRefusedServerUnavailable, "No new clients are taken"},
		{"tcp://m.lan", packets.ErrorRefusedBadProtocolVersion, "MQTT 3.1.1 is not spoken"},
		{"ws://m.lan", errors.New("websocket: bad handshake"), "What answers at m.lan:80 speaks no MQTT over WebSocket there. Check port and path in mqtt.broker, for instance ws://m.lan:80/mqtt."},
		{"tcp://m.lan", io.EOF, "The login was cut off by the broker at m.lan:1883. If that port speaks TLS"},
		{"tcp://m.lan", fmt.Errorf("%w: %w", errLost, io.EOF), "The connection to the broker at m.lan:1883 was lost."},
		{"tcp://me:secret@m.lan", errors.New("something new"), "There is no connection to the broker at m.lan:1883: something new."},
	} {
		b, err := Config{Broker: c.broker}.parseBroker()
		if err != nil {
			t.Fatal(err)
		}
		got := explain(b, c.err)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
		if strings.Contains(got, "secret") || !strings.HasSuffix(got, ".") || !regexp.MustCompile(`^[A-Z]`).MatchString(got) {
			t.Errorf("no sentence for people: %q", got)
		}
	}
}
