package store

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// mappedBytes is what of the files below dir is in the memory of this process.
func mappedBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no /proc/self/smaps here")
	}
	in := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if strings.Contains(f[0], "-") {
			in = strings.HasPrefix(f[len(f)-1], dir)
		}
		if in && f[0] == "Rss:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			n += kb << 10
		}
	}
	return n
}

func TestALargeIndexDoesNotFillTheMemoryOfTheProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const size = 24 << 20
	for range 6 { // rows of 4 KiB, all over the file
		must(t, s.update(func(tx *bbolt.Tx) error {
			for range size / 6 / 4200 {
				n, err := tx.Bucket(bucketSelf).NextSequence()
				if err != nil {
					return err
				}
				if err := tx.Bucket(bucketSelf).Put(noise(16, n), make([]byte, 4000)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	look := func(key uint64) {
		must(t, s.view(func(tx *bbolt.Tx) error {
			if len(tx.Bucket(bucketSelf).Get(noise(16, key))) != 4000 {
				t.Fatalf("key %d is not as it was written", key)
			}
			return nil
		}))
	}
	most := int64(0)
	for key := range uint64(size / 6 / 4200 * 6) {
		look(key + 1)
		if key > unmapLooks && key%64 == 0 {
			most = max(most, mappedBytes(t, dir))
		}
	}
	if most == 0 || most > unmapLooks*(64<<10)+unmapBytes {
		t.Errorf("%d bytes of a file of %d are in memory", most, size)
	}
}
