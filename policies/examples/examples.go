// Package examples holds scores that compile, for people to read and for the demo to play.
package examples

import "embed"

// Postcards is the pipeline of "Self-Repairing Deployment Pipelines": the files of one score, below "postcards".
//
//go:embed postcards
var Postcards embed.FS
