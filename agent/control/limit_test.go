package control

import "testing"

func TestRatesAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]int64{
		"none": 0, "0": 0, "1MB": 1e6, "1MB/s": 1e6, "1.5MiB": 3 << 19, "800KB": 800e3, "8Mbit": 1e6, "8 mbit/s": 1e6, "32768": 32768,
		"40000b": 40000, "2M": 2e6, "1gbit": 125e6, "32KiB/s": 32 << 10,
	} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseRate(RateText(got)); err != nil || again != got {
			t.Errorf("%d is written as %q, which is read as %d, %v", got, RateText(got), again, err)
		}
	}
	for _, text := range []string{"", "fast", "-1MB", "1e9", "NaN", "1MB/h", "0x10000", "1PB", "1000", "1KB", "Inf", "1_000_000"} {
		if got, err := ParseRate(text); CodeOf(err) != Usage {
			t.Errorf("ParseRate(%q) = %d, %v; want a refusal", text, got, err)
		}
	}
	for _, n := range []int64{32769, 1<<20 + 1, 1_234_567, 7 << 20, 1e15} {
		if again, err := ParseRate(RateText(n)); err != nil || again != n {
			t.Errorf("%d is written as %q, which is read as %d, %v", n, RateText(n), again, err)
		}
	}
}

func TestSettingsNameClasses(t *testing.T) {
	got, err := ParseLimits([]string{"2MB", "wan=800KB"}, []string{"lan=none", "wan=8Mbit"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Limit{{ClassAll, 2e6, 0}, {ClassLAN, 0, 0}, {ClassWAN, 800e3, 1e6}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	for _, bad := range []string{"mars=1MB", "wan=", "=1MB", "wan=1KB"} {
		if _, err := ParseLimits([]string{bad}, nil); CodeOf(err) != Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
