package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"

	// maxFile bounds every file of this package: the charter is the largest.
	maxFile = MaxCharter + 1
)

// SaveKey writes key to path as PKCS #8 in PEM, mode 0600, durable on return. It does not overwrite
// another key: what is lost with a key nobody can give back.
func SaveKey(path string, key ed25519.PrivateKey) error {
	old, err := LoadKey(path)
	switch {
	case err == nil && old.Equal(key):
		return nil
	case err == nil:
		return fmt.Errorf("write %s: it holds another key; move it away first", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("write %s: %w", path, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return ReplaceFile(path, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
}

// LoadKey reads a key that SaveKey wrote. It refuses a file that group or world can read: the key may
// be known to others already.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("read %s: mode %#o lets others read the key; if nobody has, run: chmod 600 %s",
			path, mode, path)
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemKey || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("read %s: not one private key in PEM; restore it from a backup", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	ours, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: key is %T, want Ed25519", path, key)
	}
	return ours, nil
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path) // to open a pipe would wait for ever
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxFile)
	}
	return b, nil
}

// ReplaceFile puts content at path, mode 0600: the old file or the new one is there at every moment, and after
// return the new one is, whatever loses power. It is written aside under one fixed name beside path, so that a crash
// leaves no more than one such file, which the next call replaces. Not for two writers of one path at once.
func ReplaceFile(path string, content []byte) (err error) {
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	defer func() {
		if err != nil {
			_ = os.Remove(aside) // the error that counts is told
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if err := os.Rename(aside, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a rename in dir durable. Windows cannot open a folder for it and needs it not.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
