//go:build !race

package agent

const thin = 1
