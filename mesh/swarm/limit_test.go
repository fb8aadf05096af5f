package swarm

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A cap holds within 10 % of the time that the bytes need at its rate, both ways, whatever the number of peers.
func TestACapHolds(t *testing.T) {
	const rate, size = 1 << 20, 10 << 20
	for name, set := range map[string]func(holder, puller *node){
		"egress":        func(a, _ *node) { a.swarm.SetLimits(Limits{All: {Egress: rate}}) },
		"ingress":       func(_, b *node) { b.swarm.SetLimits(Limits{All: {Ingress: rate}}) },
		"of its class":  func(a, _ *node) { a.swarm.SetLimits(Limits{LAN: {Egress: rate}, WAN: {Egress: MinLimit}}) },
		"least of both": func(a, _ *node) { a.swarm.SetLimits(Limits{All: {Egress: rate}, LAN: {Egress: 8 * rate}}) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.node(1), w.node(2)
				ref := a.store.put(t, 7, 1, size)
				set(a, b)
				began := time.Now()
				if err := b.pull(t, ref, time.Hour, a); err != nil {
					t.Fatal(err)
				}
				b.mustHave(t, a)
				if took := time.Since(began).Seconds(); took < 9 || took > 11 {
					t.Errorf("%d bytes at %d bytes a second took %.2f s, want 10 within 10 %%", size, rate, took)
				}
			})
		})
	}
}

func TestTheLeastCapIsSharedByManyPeersWithoutASilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.node(1)
		a.swarm.SetLimits(Limits{All: {Egress: 1}}) // raised to the least
		ref := a.store.put(t, 8, 1, 256<<10)
		const peers = 12
		errs := make(chan error, peers)
		var pullers []*node
		for i := range peers {
			pullers = append(pullers, w.node(byte(10+i)))
		}
		for _, b := range pullers {
			go func() { errs <- b.pull(t, ref, time.Hour, a) }()
		}
		for range peers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestACapChangesWhileBytesFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 9, 1, 10<<20)
		a.swarm.SetLimits(Limits{All: {Egress: MinLimit}})
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- b.pull(t, ref, time.Hour, a) }()
		time.Sleep(5 * time.Second)
		a.swarm.SetLimits(Limits{})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v although the cap went after 5 s", took)
		}
	})
}

func TestWhatIsSmallGoesBeforeWhatIsLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th throttle
		th.set([classes]int64{All: 100 << 10})
		done := make(chan struct{})
		large := make(chan struct{})
		go func() {
			th.take(LAN, 1<<20, false, done)
			close(large)
		}()
		time.Sleep(time.Second)
		began := time.Now()
		th.take(LAN, smallBytes, true, done)
		if took := time.Since(began); took > 0 {
			t.Errorf("a small answer waited %v", took)
		}
		<-large
		if took := time.Since(began); took < 9*time.Second {
			t.Errorf("the large one did not wait for the small one: %v", took)
		}
		// Many small ones together keep to the cap all the same.
		began = time.Now()
		for range 32 {
			th.take(LAN, smallBytes, true, done)
		}
		if took := time.Since(began); took < 18*time.Second {
			t.Errorf("2 MiB of small answers at 100 KiB/s took %v", took)
		}
	})
}

func TestLinksAreClassedByAddress(t *testing.T) {
	for addr, want := range map[string]Class{
		"127.0.0.1:1": LAN, "10.1.2.3:1": LAN, "192.168.0.9:1": LAN, "[fe80::1]:1": LAN, "[fd00::1]:1": LAN, "[::ffff:10.0.0.1]:1": LAN,
		"8.8.8.8:1": WAN, "[2001:db8::1]:1": WAN, "100.64.0.1:1": WAN,
	} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := classOf(a); got != want {
			t.Errorf("%s is of class %d, want %d", addr, got, want)
		}
	}
}
