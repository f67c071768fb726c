//go:build race

package agent

// thin is how many cases there are for each that runs: the race detector makes them ten times as slow, and a few hundred
// show what it can see.
const thin = 12
