package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// maxSize is what a ConfigMap can hold.
const maxSize = 1 << 20

// Fault is one thing wrong with a file.
type Fault struct {
	Path  string // such as groups[1].maxUnavailable; "" the file as a whole
	Value string // as given, "" when there is none to show
	Fix   string // what it must be
}

func (f Fault) Error() string {
	var parts []string
	for _, part := range []string{f.Path, f.Value, f.Fix} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Faults is everything wrong with a file; it is never empty.
type Faults []Fault

// Error has them all on one line.
func (f Faults) Error() string {
	parts := make([]string, len(f))
	for i := range f {
		parts[i] = f[i].Error()
	}
	return strings.Join(parts, "; ")
}

// Load reads and parses a file. What is wrong with its content is Faults.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return parseNamed(path, data)
}

func parseNamed(path string, data []byte) (*Config, error) {
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("parsing configuration %q: %w", path, err)
	}
	return c, nil
}

// read returns a file's content, at most a little more than a configuration may have.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration %q: %w", path, err)
	}
	return data, nil
}

// Parse reads a configuration file's content. The error is Faults.
func Parse(data []byte) (*Config, error) {
	tree, faults := decode(data)
	if len(faults) > 0 {
		return nil, faults
	}
	k := newChecker()
	clean, _ := k.check(tree, "", "")
	c, err := convert(clean)
	if err != nil {
		return nil, append(k.faults, Fault{Fix: err.Error()})
	}
	k.validate(c)
	if len(k.faults) > 0 {
		return nil, k.faults
	}
	return c, nil
}

// decode turns YAML into maps, lists, strings, json.Numbers and bools.
func decode(data []byte) (any, Faults) {
	if len(data) > maxSize {
		return nil, Faults{{Fix: "must not be larger than 1 MiB"}}
	}
	if n := documents(data); n > 1 {
		return nil, Faults{{Fix: fmt.Sprintf("must be one YAML document, found %d: remove the line ---", n)}}
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		var faults Faults
		for line := range strings.Lines(err.Error()) {
			if line = strings.TrimSpace(line); line != "yaml: unmarshal errors:" {
				faults = append(faults, Fault{Fix: "must be YAML with each field once: " + line})
			}
		}
		return nil, faults
	}
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, Faults{{Fix: "must be YAML: " + err.Error()}}
	}
	if tree == nil {
		tree = map[string]any{}
	}
	return tree, nil
}

// documents counts the YAML documents that hold anything: the YAML library reads the first
// and ignores the others.
func documents(data []byte) int {
	n, started := 0, false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		for _, marker := range []string{"---", "..."} {
			if rest, ok := bytes.CutPrefix(line, []byte(marker)); ok && (len(rest) == 0 || rest[0] == ' ') {
				line, started = rest, false
			}
		}
		line = bytes.TrimSpace(line)
		if started || len(line) == 0 || line[0] == '#' || line[0] == '%' {
			continue
		}
		n, started = n+1, true
	}
	return n
}

// convert fills a checked tree into the defaults.
func convert(tree any) (*Config, error) {
	data, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.Groups, c.Sentinels.Files = nil, nil
	if err := json.Unmarshal(data, c); err != nil {
		return nil, err
	}
	if err := inherit(c, tree); err != nil {
		return nil, err
	}
	c.fill()
	return c, nil
}

// inherit gives groups what they do not say themselves, where 0 is a value like any other, so that only the tree tells; and
// an empty canary its defaults.
func inherit(c *Config, tree any) error {
	top, _ := tree.(map[string]any)
	groups, _ := top["groups"].([]any)
	for i, g := range groups {
		fields, _ := g.(map[string]any)
		if fields["maxFailed"] == nil {
			c.Groups[i].MaxFailed = c.MaxFailed
		}
		if fields["soak"] == nil {
			c.Groups[i].Soak = c.Verify.Soak
		}
		if fields["canary"] != nil && c.Groups[i].Canary == (Canary{}) {
			c.Groups[i].Canary.Nodes = defaultCanaryNodes
		}
		drain, _ := fields["drain"].(map[string]any)
		if err := c.Groups[i].inheritDrain(c.Drain, drain); err != nil {
			return err
		}
	}
	return nil
}

// inheritDrain fills what a group says about its drain into what holds for all.
func (g *Group) inheritDrain(all Drain, said map[string]any) error {
	g.Drain = all
	if said["rules"] != nil {
		g.Drain.Rules = nil // its own rules take the place of the others, not their memory
	}
	data, err := json.Marshal(said)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &g.Drain)
}
