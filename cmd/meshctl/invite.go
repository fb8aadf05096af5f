package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func inviteCmd(a *app) *cobra.Command {
	var name string
	var replace bool
	var tags []string
	var ttl time.Duration
	var uses int
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a token with which a node may join",
		Long: `Invite prints a token, one line of text. Who has it may join the mesh with it: treat it as a password. Only this
node redeems it, so this node must be reachable when it is used. Name and tags given here are attested: the score may
grant rights by them.`,
		Example: `  meshctl invite --name till-7 --tag kind=till
  meshctl invite --uses 20 --ttl 24h --tag site=oslo
  meshctl invite --name till-7 --replace
  meshctl invite | ssh new-node 'meshd --join -'`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		attested, err := parseTags(tags)
		if err != nil {
			return err
		}
		r := control.InviteRequest{Name: name, Replace: replace, Uses: uses, Tags: attested}
		switch {
		case ttl < time.Second:
			return control.Errorf(control.Usage, "--ttl %v: want at least 1s", ttl)
		case uses < 1:
			return control.Errorf(control.Usage, "--uses %d: want at least 1", uses)
		case name != "" && uses > 1:
			return control.Errorf(control.Usage, "--uses %d: a name can be taken by one node alone", uses)
		case replace && name == "":
			return control.Errorf(control.Usage, "--replace needs --name: whose key is to be revoked?")
		}
		r.TTLSeconds = int64(ttl / time.Second)
		text, err := c.Invite(ctx, r)
		if err != nil {
			return err
		}
		return printToken(a, text)
	})
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the `NAME` that the node will have, attested")
	f.BoolVar(&replace, "replace", false, "revoke the node that has the name now: the machine was set up anew")
	f.StringArrayVar(&tags, "tag", nil, "a `key=value` that the node will have, attested; may be repeated")
	f.DurationVar(&ttl, "ttl", time.Hour, "how long the token is good")
	f.IntVar(&uses, "uses", 1, "how many nodes may join with it")
	return cmd
}

func printToken(a *app, text string) error {
	type item struct {
		Token string `json:"token"`
	}
	if a.format == "json" || a.format == "ndjson" {
		out, err := render(a, listing[item]{}, []item{{text}})
		if err == nil {
			_, err = a.stdout.Write(out)
		}
		return err
	}
	_, err := fmt.Fprintln(a.stdout, escape(text))
	return err
}
