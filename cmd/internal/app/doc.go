// Package app holds the tests of the whole in a real Home Assistant: both
// programs as they are built, Debian's mosquitto, a test CA and a real Core. They
// are run by make test-homeassistant. It has no code of its own.
package app
