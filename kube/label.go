package kube

import (
	"crypto/sha256"
	"encoding/hex"
)

// LabelNode is the label of a Lease that names a node.
const LabelNode = "kubebaton.io/node"

// NoNode is the value of LabelNode on a Lease that names nobody and is to be found by those who look for the Leases of a node.
const NoNode = "none"

// NodeLabel is the value of LabelNode for a node: a hash of its name, which may be longer than a label's value. Two names may
// share one, so readers compare the name itself, where the Lease has it.
func NodeLabel(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}
