package agent

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// runOnce starts a node that runs once and waits for its end.
func (f *fleet) runOnce(m *simNode) error {
	f.t.Helper()
	f.setUp = func(c *Config) { c.Once = true }
	f.start(m)
	f.setUp = nil
	defer func() { m.stop(); m.stop = nil }()
	select {
	case err := <-m.done:
		return err
	case <-time.After(10 * time.Minute):
		f.t.Fatalf("it did not end\n%s", f.report())
		return nil
	}
}

// What a node published while it was alone has a copy elsewhere when it ends; it takes what came meanwhile.
func TestOnceHandsOverWhatWasMadeAloneAndTakesWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 33)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", couriersScore))
		phone := f.join("phone", 2, map[string]string{"late": "yes", "maker": "yes"})
		f.waitScore(phone)
		f.halt(host, true)
		if _, err := f.publishFile(phone, "app", "", strings.Repeat("made alone ", 1<<16)); err != nil {
			t.Fatal(err)
		}
		f.halt(phone, true)
		f.start(host)
		f.waitScore(host)
		if _, err := f.publishFile(host, "answer", "", "from the host"); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		if err := f.runOnce(phone); err != nil {
			t.Errorf("it ended with %v", err)
		}
		t.Logf("done in %v", time.Since(before))
		if got := phone.read("answer.txt"); got != "from the host" {
			t.Errorf("it took %q", got)
		}
		offers := host.agent.supply.named("app")
		if len(offers) != 1 {
			t.Fatalf("the host heard of %d", len(offers))
		}
		if has, err := host.agent.store.Has(offers[0].ref.Root); err != nil || !has {
			t.Errorf("the node is gone, and nobody has the bytes: %v", err)
		}
		if status := f.member(host, "phone").Status; status != "left" {
			t.Errorf("it did not leave: %s", status)
		}
	})
}

// Where nobody may have the bytes it says so, and ends all the same.
func TestOnceTellsWhatNobodyTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 34)
		defer f.end()
		f.found("host", nil)
		f.publishScore(soloScore("1.0.0", strings.ReplaceAll(couriersScore, `["anybody"]`, `["late"]`)))
		phone := f.join("phone", 2, map[string]string{"maker": "yes"})
		f.waitScore(phone)
		if _, err := f.publishFile(phone, "app", "2.0.0", "secret"); err != nil {
			t.Fatal(err)
		}
		f.halt(phone, false)
		log := &lockedBuffer{}
		f.setUp = func(c *Config) { c.Once, c.Log = true, slog.New(slog.NewTextHandler(log, nil)) }
		f.start(phone)
		err := <-phone.done
		phone.stop()
		phone.stop = nil
		if err != nil && !strings.Contains(err.Error(), "q.want.answer") {
			t.Errorf("it ended with %v", err)
		}
		if got := log.String(); !strings.Contains(got, "nobody else has the bytes") || !strings.Contains(got, "app@2.0.0") {
			t.Errorf("it says nothing of what nobody took:\n%s", got)
		}
	})
}
