package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/evidence"
	"kubebaton.io/baton/lab/report"
)

// nodeCount is how many nodes the scenarios need: one that goes, one that is next, and some for the pods.
const nodeCount = 4

// How long things may take before they count as failed.
const (
	settleTime   = 75 * time.Second
	scenarioTime = 4 * time.Minute
	evidenceTime = 30 * time.Second
)

// Options of a run.
type Options struct {
	Cluster  string         // name
	Image    string         // docker-archive of the agent
	Apply    string         // kustomize directory
	Short    bool           // the scenarios marked short only
	Only     *regexp.Regexp // of those, the ones whose name matches; nil: all
	Keep     bool           // leave the cluster running
	Reuse    bool           // use, and leave, the cluster that runs already
	Out      string         // file for the results as JSON, "" none
	Evidence string         // directory for what failed scenarios leave; "" NAME.e2e beside the cluster's directory, which outlives it
	Stdout   io.Writer      // one line a scenario, and the sum
	Progress io.Writer      // of the cluster's start
}

// scenario is one promise, shown.
type scenario struct {
	name   string // a sentence
	short  bool
	config settings // the zero value is the default
	run    func(*play)
}

// Result of a scenario.
type Result struct {
	Name    string   `json:"name"`
	Passed  bool     `json:"passed"`
	Seconds float64  `json:"seconds"`
	Reason  string   `json:"reason,omitempty"`
	Notes   []string `json:"notes,omitempty"`    // what was measured on the way
	Files   string   `json:"evidence,omitempty"` // directory
}

// Report of a run.
type Report struct {
	Started   time.Time `json:"started"`
	Startup   float64   `json:"startupSeconds"` // until the first scenario could begin
	Seconds   float64   `json:"seconds"`        // all of it
	Passed    int       `json:"passed"`
	Failed    int       `json:"failed"`
	Scenarios []Result  `json:"scenarios"`
}

// Run runs the scenarios. The error is about the run itself, or says that scenarios failed.
func Run(ctx context.Context, o Options) (err error) {
	var chosen []scenario
	for _, s := range scenarios() {
		if (s.short || !o.Short) && (o.Only == nil || o.Only.MatchString(s.name)) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return errors.New("no scenario has that name")
	}
	began := time.Now()
	c, err := open(ctx, o)
	if err != nil {
		return err
	}
	if !o.Keep && !o.Reuse {
		defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	} else {
		defer func() { err = errors.Join(err, c.Release()) }()
	}
	w, err := newWorld(ctx, c, o)
	if err != nil {
		return err
	}
	defer w.obs.Stop()
	if o.Evidence == "" {
		if err := os.RemoveAll(w.evidence()); err != nil {
			return err
		}
	}
	report := Report{Started: began.UTC(), Startup: time.Since(began).Seconds()}
	fmt.Fprintf(o.Stdout, "%d nodes and their agents run after %.1f s\n", len(w.nodes), report.Startup)
	for _, s := range chosen {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		r := w.show(ctx, s)
		w.print(r)
		report.add(r)
	}
	if w.dirty && (o.Keep || o.Reuse) {
		if err := w.force(ctx); err != nil {
			return fmt.Errorf("after the scenarios: %w", err)
		}
	}
	report.Seconds = time.Since(began).Seconds()
	fmt.Fprintf(o.Stdout, "%d passed, %d failed, 0 skipped in %.0f s\n", report.Passed, report.Failed, report.Seconds)
	if err := report.write(o.Out); err != nil {
		return err
	}
	if report.Failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed", report.Failed, len(chosen))
	}
	return nil
}

func open(ctx context.Context, o Options) (*cluster.Cluster, error) {
	if o.Reuse {
		return cluster.Open(o.Cluster, "")
	}
	c, err := cluster.Start(ctx, cluster.Options{Name: o.Cluster, Nodes: nodeCount, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	if err := c.Install(ctx, o.Image, o.Apply); err != nil {
		return nil, errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

func (r *Report) add(s Result) {
	r.Scenarios = append(r.Scenarios, s)
	if s.Passed {
		r.Passed++
	} else {
		r.Failed++
	}
}

func (r *Report) write(file string) error {
	if file == "" {
		return nil
	}
	return report.Write(file, r)
}

// show runs one scenario, judges it and keeps what is needed to understand a failure.
func (w *world) show(ctx context.Context, s scenario) Result {
	r := Result{Name: s.name}
	began := time.Now()
	err := w.prepare(ctx, s)
	if err == nil {
		err = errors.Join(w.perform(ctx, s), w.cordonsLost())
		if err == nil {
			err = w.settle(ctx)
		}
		err = errors.Join(err, w.judge())
	}
	r.Seconds = time.Since(began).Round(10 * time.Millisecond).Seconds()
	r.Passed, r.Notes = err == nil, w.notes
	if err != nil {
		r.Reason = err.Error()
		r.Files = filepath.Join(w.evidence(), slug(s.name))
		limited, cancel := context.WithTimeout(ctx, evidenceTime)
		found := evidence.Case{Cluster: w.c, Observer: w.obs, From: w.began, Logs: w.logs, Text: r.Name + "\n" + r.Reason}
		if err := found.Keep(limited, r.Files); err != nil {
			fmt.Fprintf(w.Stdout, "keeping the evidence: %v\n", err)
		}
		cancel()
		w.dirty = true
	}
	return r
}

// prepare brings the cluster into the state from which a scenario begins.
func (w *world) prepare(ctx context.Context, s scenario) error {
	w.scene(s)
	if w.dirty {
		if err := w.force(ctx); err != nil {
			return fmt.Errorf("before the scenario: %w", err)
		}
	}
	if err := w.configure(ctx, s.config); err != nil {
		return fmt.Errorf("before the scenario: %w", err)
	}
	w.scene(s)
	return w.logs.Keep() // a kubelet keeps the log of the last container only
}

func (w *world) print(r Result) {
	if r.Passed {
		fmt.Fprintf(w.Stdout, "pass %6.1f s  %s\n", r.Seconds, r.Name)
	} else {
		fmt.Fprintf(w.Stdout, "FAIL %6.1f s  %s\n     %s\n     see %s\n", r.Seconds, r.Name, r.Reason, r.Files)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w.Stdout, "               %s\n", n)
	}
}

// evidence is the directory of what failed scenarios leave. The cluster's own directories go with it.
func (w *world) evidence() string {
	return cmp.Or(w.Evidence, strings.TrimSuffix(w.c.Logs(), ".logs")+".e2e")
}

func slug(name string) string {
	s := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-")
	return s[:min(len(s), 60)]
}
