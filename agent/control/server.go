package control

import (
	"context"
	"io"
	"log/slog"
	"net"
)

type Options struct {
	Group    string
	ReadOnly bool
	Log      *slog.Logger
}

func Serve(ctx context.Context, l net.Listener, b Backend, o Options) error { panic("not built") }

func Listen(path, group string) (net.Listener, error)                  { panic("not built") }
func SocketPath(dataDir string) string                                 { panic("not built") }
func DefaultDataDir() string                                           { panic("not built") }
func Pack(w io.Writer, path string, skip func(name string) bool) error { panic("not built") }
func Unpack(r io.Reader, dest string, lim Limits) error                { panic("not built") }
func Files(r io.Reader, lim Limits) (map[string][]byte, error)         { panic("not built") }

type Limits struct {
	Entries int
	Bytes   int64
}
type Client struct{ Backend }

func NewClient(addr, dataDir string) (*Client, error) { panic("not built") }
