package demo

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/agent/control"
)

// noise is n random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func TestGarbageAndSilenceOnThePort(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	addr := host.address()
	junk := noise(1 << 20)
	udp, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	for at := 0; at < len(junk); at += 1024 {
		_, _ = udp.Write(junk[at : at+1024]) // may be refused for a moment: nothing waits for it
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(testTime))
	_, _ = c.Write(junk) // the node closes when it has seen enough
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stream of garbage is still open")
	}
	_ = c.Close()

	// 200 streams that say nothing, from the address that honest nodes have too.
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	began := time.Now()
	f.join("late")
	host.alive(2)
	t.Logf("beside 200 silent streams a node joined in %v", round(time.Since(began)))
	host.unharmed()
	if said := host.proc.Tail(); len(said) == tailBytes {
		t.Errorf("the log is flooded:\n%s", said)
	}
}

// address is where the node says that it is.
func (n *node) address() string {
	n.f.t.Helper()
	for _, m := range items[control.Member](n, "members") {
		if m.Self {
			return m.Address
		}
	}
	n.f.t.Fatal("the node does not list itself")
	return ""
}

func TestNamesAndTreesThatTryToLeave(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	plain := filepath.Join(f.dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	publish := func(code int, words []string, name, path string) {
		t.Helper()
		f.refused(code, words, "meshctl", "--data-dir", host.dir, "publish", name, path)
	}
	for _, name := range []string{"../x", "/x", "x/", "a//b", "a/../b", "", ".", "a b", "a\nb", strings.Repeat("x", 201)} {
		publish(codeUsage, []string{"artifact name"}, name, plain)
	}
	publish(codeUsage, []string{"meshctl policy publish"}, "score", plain)
	for _, version := range []string{"../../x", "newest", "1.0.0\n", strings.Repeat("1", 3000)} {
		f.refused(codeUsage, []string{"no semver"}, "meshctl", "--data-dir", host.dir, "publish", "app", plain, "--version", version)
	}
	publish(codeFailed, []string{"nosuch"}, "app", filepath.Join(f.dir, "nosuch"))

	tree := func(name string, spoil func(dir string) error) string {
		t.Helper()
		dir := filepath.Join(f.dir, name)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "good"), []byte("good"), 0o644), spoil(dir)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	publish(codeFailed, []string{"out"}, "app", tree("link", func(dir string) error { return os.Symlink("../plain", filepath.Join(dir, "out")) }))
	publish(codeFailed, []string{"abs"}, "app", tree("abslink", func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "abs")) }))
	publish(codeFailed, []string{"suid", "setuid"}, "app", tree("setuid", func(dir string) error {
		path := filepath.Join(dir, "suid")
		return errors.Join(os.WriteFile(path, nil, 0o755), os.Chmod(path, 0o755|os.ModeSetuid))
	}))
	publish(codeFailed, []string{"pipe"}, "app", tree("fifo", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644) }))
	publish(codeFailed, []string{"/dev/null"}, "app", "/dev/null")

	// What meshctl would not send, said to the door itself.
	for name, h := range map[string]tar.Header{
		"up":       {Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1},
		"absolute": {Name: "/tmp/evil", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1},
		"link out": {Name: "x", Typeflag: tar.TypeSymlink, Linkname: "../../../etc"},
		"device":   {Name: "x", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		"hardlink": {Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		"setuid":   {Name: "x", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 1},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = w.Write([]byte("x"))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), testTime)
		_, err := host.door().Publish(ctx, "app", "", &b, nil)
		cancel()
		if control.CodeOf(err) != codeFailed && control.CodeOf(err) != codeUsage {
			t.Errorf("a tree with an entry that is %s: %v", name, err)
		}
	}
	if list := items[control.Artifact](host, "artifacts"); len(list) != 1 {
		t.Errorf("besides the score something was published: %+v", list)
	}
	if left, err := os.ReadDir(filepath.Join(host.dir, "tmp")); err == nil && len(left) > 0 {
		t.Errorf("what was refused left %v", left)
	}
	host.unharmed()
}

// Paths that only an evaluation shows to leave, and links that people made, fail their promise alone.
func TestPromisedPathsThatTryToLeave(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore, "up=..")
	outside := filepath.Join(f.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	link := host.work("link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	host.publish(strings.Replace(goodScore, "1.0.0", "1.1.0", 1) + `
part "q" {
  file "up" {
    path    = "a/${tag.up}/../up.txt"
    content = "out"
  }
  file "through" {
    path    = "link/through.txt"
    content = "out"
  }
  want "up" {
    name  = "app"
    place = "${tag.up}/placed.txt"
  }
  want "through" {
    name  = "app"
    place = "link/placed.txt"
  }
}
`)
	app := filepath.Join(f.dir, "app")
	if err := os.WriteFile(app, []byte("app"), 0o644); err != nil {
		t.Fatal(err)
	}
	host.ctl("publish", "app", app)
	for _, address := range []string{"q.file.up", "q.file.through", "q.want.up", "q.want.through"} {
		eventually(t, address+" fails", func() (bool, string) {
			p := host.promise(address)
			return p.Outcome == "failed", p.Outcome + ": " + p.Reason
		})
	}
	damage(t, host.work("kept.txt"), true)
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside the work folder are %v, %v", left, err)
	}
	for _, path := range []string{filepath.Join(f.dir, "placed.txt"), filepath.Join(f.dir, "up.txt"), filepath.Join(host.dir, "up.txt")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was written", path)
		}
	}
}

func TestNonsenseAtTheDoor(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	socket := control.SocketPath(host.dir)
	ask := func(text string) string {
		t.Helper()
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(testTime))
		_, _ = io.WriteString(c, text) // the node may have answered and closed before it has read all
		b, err := io.ReadAll(io.LimitReader(c, 1<<20))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no end of the answer to %.60q", text)
		}
		return string(b)
	}
	post := func(path, body string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	for _, tt := range []struct{ text, want string }{
		{string(noise(1<<16)) + "\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", `"error"`},
		{"GET /v1/members HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 2<<20) + "\r\n\r\n", "431"},
		{"DELETE /v1/members HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", `"error"`},
		{post("/v1/invite", "{"), `"error"`},
		{post("/v1/invite", `{"name": ["x"]}`), `"error"`},
		{post("/v1/invite", strings.Repeat(" ", 2<<20)), `"error"`},
		{post("/v1/publish?name=app", "this is no tar"), `"type":"error"`},
		{post("/v1/score", string(noise(4096))), `"type":"error"`},
		{"GET /v1/events?since_seconds=NaN HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", `"type":"error"`},
		{"GET /v1/story?since_seconds=-1e300 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", `"error"`},
	} {
		if got := ask(tt.text); !strings.Contains(got, tt.want) {
			t.Errorf("asked %.60q: the answer lacks %q: %.400q", tt.text, tt.want, got)
		}
	}
	host.unharmed()
	if list := items[control.Artifact](host, "artifacts"); len(list) != 1 {
		t.Errorf("besides the score something was published: %+v", list)
	}
}

func TestNobodyAnswersMeshctl(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	dead := filepath.Join(f.dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(f.dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	members := func(code int, words []string, args ...string) {
		t.Helper()
		f.refused(code, words, "meshctl", append(args, "members")...)
	}
	for _, path := range []string{dead, f.dir, file, filepath.Join(f.dir, "nosuch.sock")} {
		members(codeUnreachable, []string{path, "not answering", "--addr"}, "--addr", "unix://"+path)
	}
	members(codeUnreachable, []string{"not answering", "--data-dir"}, "--data-dir", filepath.Join(f.dir, "nosuch"))
	members(codeUnreachable, []string{"meshd"}, "--addr", "http://"+host.address()) // the mesh's port, not the door
	for _, addr := range []string{"ftp://x", "127.0.0.1:80"} {
		members(codeUsage, []string{"address", "unix:///"}, "--addr", addr)
	}
	host.unharmed()
	host.kill()
	members(codeUnreachable, []string{host.dir, "connection refused", "start it"}, "--data-dir", host.dir)
	host.start() // over the socket of the dead
	host.unharmed()
}
