// Command meshctl asks a meshd and gives it orders, over the unix socket of one node (SPEC 10).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() { os.Exit(command()) }

// command is main for the tests that run meshctl as a user types it.
func command() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{
		stdout: os.Stdout,
		stderr: os.Stderr,
		outTTY: term.IsTerminal(int(os.Stdout.Fd())),
		errTTY: term.IsTerminal(int(os.Stderr.Fd())),
		color:  os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		now:    time.Now,
		height: func() int {
			_, height, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				return 0
			}
			return height
		},
	}
	return int(a.run(ctx, os.Args[1:]))
}
