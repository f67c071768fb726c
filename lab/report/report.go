// Package report is what all that measures here has in common: the spread of values, the load of the machine meanwhile, the
// figures as a file, and an error that names what was missed.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Write writes v to path as indented JSON.
func Write(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// Missed is an error that names the goals that were missed; nil when there are none.
func Missed(goals []string) error {
	if len(goals) == 0 {
		return nil
	}
	return errors.New("missed: " + strings.Join(goals, "; "))
}
