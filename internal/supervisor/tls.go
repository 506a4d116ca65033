package supervisor

import "crypto/tls"

// untrusting is how the Supervisor talks to Core: whatever certificate that
// shows, since it is made for the name that people use.
func untrusting() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
