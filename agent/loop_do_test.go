package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// Who calls the loop waits no longer than its context lasts for the call to begin, and then for it to end.
func TestACallEndsWithItsContextUnlessItHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &loop{a: &Agent{stopping: make(chan struct{})}, calls: make(chan func(), 1)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		ran := false
		go func() { ended <- l.do(ctx, func() { ran = true }) }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a call that has not begun ended with %v", err)
		}
		if (<-l.calls)(); ran {
			t.Error("it ran although its caller was told that it did not")
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { ended <- l.do(ctx, func() { cancel(); synctest.Wait(); ran = true }) }()
		(<-l.calls)()
		if err := <-ended; err != nil || !ran {
			t.Errorf("a call that had begun ended with %v, through: %v", err, ran)
		}
	})
}
