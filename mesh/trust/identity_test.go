package trust

import (
	"bytes"
	"crypto/ecdh"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentityFromSeed(t *testing.T) {
	a, again, other := newIdentity(t, 2), newIdentity(t, 2), newIdentity(t, 3)
	if !a.Key.Equal(again.Key) || a.Key.Equal(other.Key) {
		t.Error("the key does not follow from the seed alone")
	}
	// Golden: data folders in the field hold the seed, the mesh knows the box key.
	pub, priv := a.BoxKey()
	if got, want := hex.EncodeToString(pub[:]), boxGolden; got != want {
		t.Errorf("box key %s, want %s", got, want)
	}
	key, err := ecdh.X25519().NewPrivateKey(priv[:])
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), pub[:]) {
		t.Errorf("the halves of the box key are not of one pair (%v)", err)
	}
	if _, err := NewIdentity(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key from 31 bytes")
	}
	fresh, err := NewIdentity(nil)
	if err != nil || fresh.Key.Equal(a.Key) {
		t.Errorf("a key from the system's random: %v", err)
	}
}

const boxGolden = "fccb101d28abb8adfa7ec498be455309dc7a7474e0570941ccdb5b74050fdf46"

func TestIdentityOnDisk(t *testing.T) {
	c, _, sponsor := founded(t)
	dir := t.TempDir()
	if _, err := LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("empty folder: %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := LoadCharter(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no charter: %v, want %v", err, fs.ErrNotExist)
	}
	guest := &Identity{Key: sponsor.Key}
	for _, i := range []*Identity{guest, sponsor, sponsor} { // before admission, after, and once more
		if err := i.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(i, got); d != "" {
			t.Errorf("identity (-want +got):\n%s", d)
		}
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadCharter(dir); err != nil || got.MeshID() != c.MeshID() {
		t.Errorf("charter: %v", err)
	}
	if err := newIdentity(t, 3).Save(dir); err == nil {
		t.Error("another key was overwritten")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(names) != 3 || len(hidden) != 0 {
		t.Errorf("files %v and %v, want three and none", names, hidden)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s: mode %v, want 0600 (%v)", name, info.Mode(), err)
		}
	}
}

func TestKeyFileIsRefused(t *testing.T) {
	key := newIdentity(t, 2).Key
	der, err := x509.MarshalPKCS8PrivateKey(ecdsaKey(t))
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good.key")
	if err := SaveKey(good, key); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": {}, "text": []byte("secret"), "cut": text[:len(text)/2], "two keys": append(bytes.Clone(text), text...),
		"P-256":     pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}),
		"garbage":   pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: []byte{1, 2, 3}}),
		"a million": bytes.Repeat([]byte{'x'}, 1<<20),
	} {
		path := filepath.Join(t.TempDir(), "node.key")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil {
			t.Errorf("%s: read as a key", name)
		}
		if err := SaveKey(path, key); err == nil {
			t.Errorf("%s: overwritten", name)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o610, 0o666} {
		if err := os.Chmod(good, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(good); err == nil {
			t.Errorf("mode %#o: read", mode)
		}
	}
}

func TestChainFileIsRefused(t *testing.T) {
	_, _, sponsor := founded(t)
	dir := t.TempDir()
	if err := sponsor.Save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, certFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": {}, "cut": text[:len(text)-30], "three": append(bytes.Clone(text), text...), "text": []byte("hello"),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil {
			t.Errorf("%s: read as a chain", name)
		}
	}
	if err := os.WriteFile(path, append(text, "\n\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir); err != nil {
		t.Errorf("blank lines at the end: %v", err)
	}
}

func TestReplaceFileTakesOverWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "peers")
	if err := os.WriteFile(filepath.Join(dir, ".peers.new"), []byte("half, and longer than what fol"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second, longer", "3"} {
		if err := ReplaceFile(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("the file holds %q (%v), want %q", got, err, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the file alone", entries, err)
	}
}
