package link

import "testing"

// A machine that boots with no network has none of its addresses yet, and its node starts all the same.
func TestListenTakesAnAddressThatIsNotThereYet(t *testing.T) {
	for _, addr := range []string{"192.0.2.7:0", "[2001:db8::7]:0"} { // addresses that no machine has (RFC 5737, 3849)
		l, p, err := Real.Listen(addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
