package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func bundleCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Carry artifacts and records in a file, to where no network leads",
		Long: `A bundle is one file with artifacts, the signed records that offer them, the certificates and statements that these
need, and the score. It is carried by hand to a node of the same mesh that cannot be reached. That node verifies it as
if a peer had sent it, so it matters not through whose hands it went.`,
		Example: `  meshctl bundle export ./all.bundle
  meshctl bundle import ./all.bundle`,
	}
	group(cmd)
	cmd.AddCommand(bundleExportCmd(a), bundleImportCmd(a))
	return cmd
}

func bundleExportCmd(a *app) *cobra.Command {
	var request control.BundleRequest
	cmd := &cobra.Command{
		Use:   "export [PATTERN...] FILE",
		Short: "Write artifacts, what proves them, and the score to a file",
		Long: `Export writes to FILE (- for stdout) the latest version of each artifact that matches a PATTERN, as meshctl artifacts
lists them, and the score. In PATTERN * stands for one segment of a name and ** for any number; -l takes a field of
meshctl artifacts -o json. Without both it is everything. What this node lacks is pulled first.

With the artifacts go the whole logs of their publishers, and what all nodes say of themselves. Equal content is an
equal file. FILE may not exist yet; after an error there is nothing at FILE. A terminal shows how far it has come; with
-o ndjson lines of type "progress" go before the result.`,
		Example: `  meshctl bundle export ./stick.bundle
  meshctl bundle export 'app/**' package ./apps.bundle
  meshctl bundle export -l publisher=host --held ./host.bundle
  meshctl bundle export - | meshctl bundle import -`,
		Args: atLeast(1),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			names, _ := liveNames(a, cmd, artifactNames)
			return names, cobra.ShellCompDirectiveDefault
		},
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		request.Patterns, request.Labels = args[:len(args)-1], a.labels
		if _, err := control.Labels[control.Artifact](a.labels); err != nil {
			return err
		}
		file := args[len(args)-1]
		m := newMeter(a, "export "+filepath.Base(file))
		if file == "-" && a.outTTY {
			return control.Errorf(control.Usage, "a bundle is not for a terminal: name a file, or send stdout elsewhere")
		}
		if file == "-" {
			m.json = nil // stdout is the bundle
			_, err := c.ExportBundle(ctx, request, a.stdout, m.progress)
			m.clear()
			return err
		}
		var made control.Bundle
		err := writeNew(file, func(w io.Writer) (err error) {
			made, err = c.ExportBundle(ctx, request, w, m.progress)
			return err
		})
		m.clear()
		if err != nil {
			return err
		}
		return a.showBundle(made)
	})
	labelFlag(a, cmd)
	cmd.Flags().BoolVar(&request.All, "all", false, "every version that is offered, not only the latest")
	cmd.Flags().BoolVar(&request.Held, "held", false, "leave out what this node has not got, instead of pulling it")
	return cmd
}

func bundleImportCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in what another node of this mesh exported",
		Long: `Import hands FILE (- for stdin) to the daemon, which verifies it to its end before anything of it takes effect:
signatures of every record, the publishers' certificates under the charter, the hash of every byte. A file that is cut,
altered, or of another mesh is refused, and nothing of it is taken in. What is in it twice, or is here already, does no
harm: importing twice changes nothing. Then the node acts on it, and passes it on, as if a peer had told it.

A terminal shows how far it has come; with -o ndjson lines of type "progress" go before the result.`,
		Example: `  meshctl bundle import ./all.bundle
  meshctl bundle import ./all.bundle -o json`,
		Args: between(1, 1),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		var in io.Reader = os.Stdin
		var size int64
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if info.IsDir() {
				return fmt.Errorf("%q is a folder: want a file that meshctl bundle export wrote", args[0])
			}
			in, size = f, info.Size()
		}
		m := newMeter(a, "import "+filepath.Base(args[0]))
		taken, err := c.ImportBundle(ctx, in, size, m.progress)
		m.clear()
		if err != nil {
			return err
		}
		if taken.RecordsLeft > 0 {
			a.note("%s left out: this mesh's charter does not back the certificates of their origins, or the file lacks them",
				count(int(taken.RecordsLeft), "record"))
		}
		return a.showBundle(taken)
	})
	return cmd
}

// atLeast takes least or more arguments.
func atLeast(least int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least {
			return nil
		}
		return between(least, least)(cmd, args)
	}
}

// writeNew makes a file that does not exist yet of what write writes: whole and on its disk, or not at all.
func writeNew(path string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%q is there already: name another path", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".meshctl-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (a *app) showBundle(b control.Bundle) error {
	type bundle = control.Bundle
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	text, err := render(a, listing[bundle]{
		name: func(b bundle) string { return b.Mesh },
		columns: []column[bundle]{
			{"MESH", false, func(b bundle) string { return b.Mesh }},
			{"RECORDS", false, func(b bundle) string { return count(b.Records) }},
			{"NEW", false, func(b bundle) string { return count(b.RecordsNew) }},
			{"ARTIFACTS", false, func(b bundle) string { return strconv.Itoa(len(b.Artifacts)) }},
			{"NEW", false, func(b bundle) string { return strconv.Itoa(len(b.ArtifactsNew)) }},
			{"SIZE", false, func(b bundle) string { return sizeText(b.SizeBytes) }},
			{"CARRIES", true, func(b bundle) string { return commas(b.Artifacts) }},
		},
	}, []bundle{b})
	if err == nil {
		_, err = a.stdout.Write(text)
	}
	return err
}
