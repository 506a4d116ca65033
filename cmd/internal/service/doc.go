// Package service proves Certsitter as a service of a Linux machine: its systemd
// units, its package for Debian, nginx and openHAB beside it. It has tests only,
// which run the real programs; nothing imports it.
package service
