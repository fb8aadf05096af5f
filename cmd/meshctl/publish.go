package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func publishCmd(a *app) *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   "publish NAME PATH",
		Short: "Offer a file or folder to the mesh under a name",
		Long: `Publish hands the file or folder at PATH to the daemon, which stores it and offers it to the mesh as the next version
of NAME. Bytes, names, permissions and links inside the folder are kept; times and owners are not. What leaves the
folder by a link, devices and setuid files are refused. When it returns, the artifact is durable and announced.

It prints the artifact as meshctl artifacts does, with the nodes that have it by then: copies that are not made yet
are made as nodes come. A terminal shows how far it has come; with -o ndjson lines of type "progress" go before.`,
		Example: `  meshctl publish app ./build
  meshctl publish app ./app.tgz --version 1.4.0
  meshctl publish app ./build -o json`,
		Args: between(2, 2),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if _, err := os.Stat(args[1]); err != nil {
			return err
		}
		m, total := newMeter(a, "publish "+args[0]), bytesBelow(args[1])
		var made control.Artifact
		err := sendTree(args[1], nil, func(tar io.Reader) (err error) {
			made, err = c.Publish(ctx, args[0], version, m.sending(tar, total), m.progress)
			return err
		})
		m.clear()
		if err != nil {
			return err
		}
		l := artifactListing(a)
		for i := range l.columns {
			l.columns[i].wide = l.columns[i].wide && l.columns[i].head != "HOLDERS" // they are the copies made
		}
		text, err := render(a, l, []control.Artifact{made})
		if err == nil {
			_, err = a.stdout.Write(text)
		}
		return err
	})
	cmd.Flags().StringVar(&version, "version", "", "a semver `VERSION` shown beside the counter")
	return cmd
}

// sendTree packs path into what send reads. When both fail, the one that failed first is told.
func sendTree(path string, skip func(string) bool, send func(io.Reader) error) error {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := control.Pack(w, path, skip)
		w.CloseWithError(err)
		packed <- err
	}()
	err := send(r)
	r.CloseWithError(io.ErrClosedPipe)
	packErr := <-packed
	if packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return packErr
	}
	return err
}
