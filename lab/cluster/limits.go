package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// All nodes of all clusters share the machine's inotify instances, which are counted by user: what is enough for one
// machine is not for four.
const (
	inotifyInstances = "/proc/sys/fs/inotify/max_user_instances"
	enoughInstances  = 8192
)

// raiseLimits lifts what the nodes share, and never lowers it.
func raiseLimits() error {
	text, err := os.ReadFile(inotifyInstances)
	if err != nil {
		return fmt.Errorf("reading the limit of inotify instances: %w", err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("reading the limit of inotify instances: %w", err)
	}
	if have >= enoughInstances {
		return nil
	}
	if err := os.WriteFile(inotifyInstances, []byte(strconv.Itoa(enoughInstances)), 0o600); err != nil {
		return fmt.Errorf("raising the limit of inotify instances: %w", err)
	}
	return nil
}
