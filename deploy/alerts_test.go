package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"
)

const alerts = "components/alerts"

// alert is a rule as far as it is looked at here.
type alert struct {
	Alert string `json:"alert"`
	Expr  string `json:"expr"`
}

// rules are the groups of rules in the PrometheusRule, and all their alerts.
func rules(t *testing.T) (groups []any, all []alert) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(alerts, "prometheusrule.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var plain struct {
		Spec struct {
			Groups []any `json:"groups"`
		} `json:"spec"`
	}
	var typed struct {
		Spec struct {
			Groups []struct {
				Rules []alert `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	for _, into := range []any{&plain, &typed} {
		if err := sigsyaml.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range typed.Spec.Groups {
		all = append(all, g.Rules...)
	}
	return plain.Spec.Groups, all
}

// promtool runs the checks of Prometheus itself, in a directory of its own.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func writeRules(t *testing.T, dir string, groups []any) {
	t.Helper()
	text, err := sigsyaml.Marshal(map[string]any{"groups": groups})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rules.yaml"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPeer12_EveryAlertFiresWhenItShouldAndNotBefore(t *testing.T) {
	dir := t.TempDir()
	groups, all := rules(t)
	writeRules(t, dir, groups)
	promtool(t, dir, "check", "rules", "rules.yaml")
	tests, err := os.ReadFile("testdata/alerts.yaml")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "alerts.yaml"), tests, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "test", "rules", "alerts.yaml")
	for _, a := range all {
		if n := len(regexp.MustCompile(`alertname: `+a.Alert+`\b`).FindAll(tests, -1)); n < 2 {
			t.Errorf("testdata/alerts.yaml looks at %s %d times: it has to fire, and not to", a.Alert, n)
		}
	}
}

func TestEveryPanelOfTheDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(alerts, "dashboard.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Data map[string]string `json:"data"`
	}
	if err := sigsyaml.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(m.Data["baton.json"]), &board); err != nil {
		t.Fatal(err)
	}
	var queries []any
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, q := range p.Targets {
			queries = append(queries, map[string]any{"record": "panel:query", "expr": q.Expr, "labels": map[string]any{"n": string(rune('A' + len(queries)))}})
		}
	}
	dir := t.TempDir()
	writeRules(t, dir, []any{map[string]any{"name": "panels", "rules": queries}})
	promtool(t, dir, "check", "rules", "rules.yaml")
}
