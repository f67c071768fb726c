// Package programs holds the lab's own small programs as source: the power supply of a node and what runs inside the test
// images. They use the standard library only, so that the lab can build them into its cache from wherever it runs.
package programs

import "embed"

// Source is one directory a program, named like the program.
//
//go:embed */main.go
var Source embed.FS

// Names of the programs, in build order.
func Names() []string { return []string{"app", "cni", "pause", "power"} }
