package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

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

It prints the artifact as meshctl artifacts does, and on stderr which other nodes have a copy already. A terminal shows
how far it has come; with -o ndjson lines of type "progress" go before the artifact.`,
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
		text, err := render(a, artifactListing(a), []control.Artifact{made})
		if err == nil {
			_, err = a.stdout.Write(text)
		}
		if a.format == "table" || a.format == "wide" {
			fmt.Fprintln(a.stderr, copiesText(made))
		}
		return err
	})
	cmd.Flags().StringVar(&version, "version", "", "a semver `VERSION` shown beside the counter")
	return cmd
}

// copiesText says who has what was published besides this node.
func copiesText(x control.Artifact) string {
	others := slices.DeleteFunc(slices.Clone(x.Holders), func(n string) bool { return n == x.Publisher })
	if len(others) == 0 {
		return "no other node has a copy yet: it is durable here, and others get it while this node is up"
	}
	return "copies: " + commas(others)
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
