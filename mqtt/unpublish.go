package mqtt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Unpublish empties every retained topic of ours: known, and what is found on
// the broker below exactly our base. It is for leaving, and for the old topics
// before Topic or DiscoveryPrefix change; a Publisher on the same base must
// have ended, or it puts everything back. It returns what was emptied, sorted.
// Errors are sentences for people.
func Unpublish(ctx context.Context, c Config, known []string) (emptied []string, err error) {
	if err := c.checkTopics(); err != nil {
		return nil, err
	}
	b, err := c.parseBroker()
	if err != nil {
		return nil, err
	}
	if emptied, err = unpublish(ctx, c, b, known, usualPace()); err != nil {
		if ctx.Err() != nil {
			return emptied, ctx.Err()
		}
		return emptied, errors.New(explain(b, err))
	}
	return emptied, nil
}

func unpublish(ctx context.Context, c Config, b brokerAddress, known []string, pace pace) ([]string, error) {
	found := make(chan string, inboxKept)
	conn, err := dial(ctx, b, greeting{
		clientID: "certsitter-" + c.Installation + "-unpublish", // not the daemon's: that would end its connection
		receive: func(topic string, payload []byte, retained bool) {
			if !retained || len(payload) == 0 || !c.leaves(topic, payload) {
				return
			}
			select {
			case found <- topic:
			default: // far more than anybody has; another call finds the rest
			}
		},
	})
	if err != nil {
		return nil, err
	}
	defer conn.close()
	if _, err := conn.subscribe(ctx, 0, c.prefix()+"/+/+/+/config", c.base()+"/#", c.homieBase()+"#"); err != nil {
		return nil, err
	}
	topics, err := gather(ctx, conn, found, pace)
	if err != nil {
		return nil, err
	}
	if !topics[c.homieBase()+"$implementation"] { // somebody else's device has our name
		maps.DeleteFunc(topics, func(topic string, _ bool) bool { return c.isHomie(topic) })
	}
	for _, topic := range known {
		if plainTopic(topic) {
			topics[topic] = true
		}
	}
	return remove(ctx, conn, topics, pace)
}

// leaves says of a retained topic whether it goes when we leave: what a sweep
// may empty, and what the Publisher always has. Commands that somebody
// retained by mistake go too.
func (c Config) leaves(topic string, payload []byte) bool {
	if topic == c.statusTopic() || topic == c.serviceTopic() {
		return true
	}
	if _, ok := c.command(topic); ok {
		return true
	}
	if c.isHomie(topic) {
		return !strings.HasSuffix(topic, "/$implementation") || string(payload) == homieImplementation
	}
	return c.owns(topic, payload)
}

// gather collects topics until no more come.
func gather(ctx context.Context, conn *connection, found <-chan string, pace pace) (map[string]bool, error) {
	topics := map[string]bool{}
	end := time.After(pace.sweepMost)
	quiet := time.NewTimer(pace.quiet)
	defer quiet.Stop()
	for {
		select {
		case topic := <-found:
			topics[topic] = true
			quiet.Reset(pace.quiet)
		case <-quiet.C:
			return topics, nil
		case <-end:
			return topics, nil
		case <-conn.lost:
			return nil, conn.loss()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// remove empties announcements, waits until entities are removed, and empties
// the rest.
func remove(ctx context.Context, conn *connection, topics map[string]bool, pace pace) (emptied []string, err error) {
	var first, then []string
	for topic := range topics {
		if isDiscovery(topic) {
			first = append(first, topic)
		} else {
			then = append(then, topic)
		}
	}
	for _, batch := range [][]string{first, then} {
		if len(emptied) > 0 && len(batch) > 0 {
			pause(ctx, pace.settle)
		}
		removalOrder(batch)
		for part := range slices.Chunk(batch, inFlight) {
			var messages []Message
			for _, topic := range part {
				messages = append(messages, retained(topic, nil))
			}
			if err := conn.publish(ctx, messages...); err != nil {
				return emptied, fmt.Errorf("empty topics: %w", err)
			}
			emptied = append(emptied, part...)
		}
	}
	slices.SortFunc(emptied, strings.Compare)
	return emptied, nil
}
