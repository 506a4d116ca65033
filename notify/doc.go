// Package notify decides who hears what and when: it keeps one incident per
// certificate or endpoint and an outbox with one entry per incident and target,
// and it finds the words.
//
// It is pure: every function takes the time, and the Book is a value that is
// stored as JSON. It never sends anything, never asks the time, never waits, and
// knows no notification service. Package notify/shout delivers, in the worker.
package notify
