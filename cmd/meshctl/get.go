package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func getCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get NAME[@VERSION] PATH",
		Short: "Fetch an artifact into a file or folder",
		Long: `Get has the daemon fetch an artifact, from whichever nodes hold it, and writes it to PATH: a file or a folder, as it
was published. Without VERSION the latest is taken. PATH may not exist yet; after an error there is nothing at PATH.
Nothing is ever written outside PATH. A terminal shows how far it has come; with -o ndjson there are lines of type
"progress". What the node has of it stays there: a get that was interrupted goes on where it was when called again.`,
		Example: `  meshctl get app ./app
  meshctl get app@1.4.0 ./app-1.4.0
  meshctl get postcard/container_1@3 ./postcard`,
		Args:              between(2, 2),
		ValidArgsFunction: completeWith(a, artifactNames),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		m := newMeter(a, "get "+args[0])
		r, w := io.Pipe()
		unpacked := make(chan error, 1)
		go func() {
			err := control.Unpack(r, args[1], control.Limits{})
			r.CloseWithError(err)
			unpacked <- err
		}()
		err := c.Get(ctx, args[0], m.receiving(w, "get "+args[0]+", written"), m.progress)
		w.CloseWithError(err)
		unpackErr := <-unpacked
		m.clear()
		if err != nil && !errors.Is(err, unpackErr) {
			return err
		}
		return unpackErr
	})
	return cmd
}
