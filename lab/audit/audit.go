// Package audit counts API requests in a Kubernetes audit log, so that what a program costs the API server is measured by
// the server and not by the program.
//
// Guarantees: a watch counts once, although the log tells of its start and of its end. A line that is still being written is
// left out.
//
// Not guaranteed: requests are told apart by pod only for service account tokens that name their pod (Kubernetes 1.30 on).
package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Caller is who asked.
type Caller struct {
	User      string // user name
	Pod, Node string // of the token's pod; "" when the caller is not a pod
}

// Request is what was asked, and the answer's code.
type Request struct {
	Verb, Resource, Subresource string
	Code                        int
}

// Counts of requests.
type Counts map[Caller]map[Request]int

// Total of a caller's requests that match; nil matches all.
func (c Counts) Total(caller Caller, match func(Request) bool) int {
	n := 0
	for r, count := range c[caller] {
		if match == nil || match(r) {
			n += count
		}
	}
	return n
}

// event is the part of audit.k8s.io/v1 Event that is used.
type event struct {
	AuditID    string    `json:"auditID"`
	Stage      string    `json:"stage"`
	Verb       string    `json:"verb"`
	RequestURI string    `json:"requestURI"`
	UserAgent  string    `json:"userAgent"`
	Received   time.Time `json:"requestReceivedTimestamp"`
	Staged     time.Time `json:"stageTimestamp"`
	User       struct {
		Username string              `json:"username"`
		Extra    map[string][]string `json:"extra"`
	} `json:"user"`
	Object struct {
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// CountFile counts the requests in a log file, see Count.
func CountFile(path string, from, to time.Time) (Counts, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("counting requests: %w", err)
	}
	defer func() { _ = f.Close() }()
	return Count(f, from, to)
}

// Count counts the requests that the API server received in the interval, its end excluded. A zero time does not limit.
func Count(r io.Reader, from, to time.Time) (Counts, error) {
	counts := Counts{}
	err := each(r, from, to, func(e event) {
		caller, request := e.caller(), e.request()
		if counts[caller] == nil {
			counts[caller] = map[Request]int{}
		}
		counts[caller][request]++
	})
	return counts, err
}

// CountUserAgent counts the requests in a log file of the program that calls itself so, for callers that share a user; the
// interval is as in Count.
func CountUserAgent(path, userAgent string, from, to time.Time) (map[Request]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("counting requests: %w", err)
	}
	defer f.Close()
	counts := map[Request]int{}
	err = each(f, from, to, func(e event) {
		if e.UserAgent == userAgent {
			counts[e.request()]++
		}
	})
	return counts, err
}

// Eviction is a request to evict a pod, and the answer's code: 201 evicted, 429 not now.
type Eviction struct {
	Time           time.Time
	Caller         Caller
	Namespace, Pod string
	Code           int
}

// Evictions are those in a log file, in its order, without dry runs; the interval is as in Count.
func Evictions(path string, from, to time.Time) ([]Eviction, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading evictions: %w", err)
	}
	defer f.Close()
	var found []Eviction
	err = each(f, from, to, func(e event) {
		if e.Verb == "create" && e.Object.Resource == "pods" && e.Object.Subresource == "eviction" && !strings.Contains(e.RequestURI, "dryRun=All") {
			found = append(found, Eviction{e.Received, e.caller(), e.Object.Namespace, e.Object.Name, e.Response.Code})
		}
	})
	return found, err
}

// Watch is a watch that goes on.
type Watch struct {
	Caller   Caller
	Resource string
	Timeout  time.Duration // after which it ends and is asked for anew; 0: it did not say
}

// Watching are the watches in a log file that were going on at that time. One that is asked for again while the server has
// not yet noticed the end of the one before, as after a crash, counts once.
func Watching(path string, at time.Time) ([]Watch, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("looking for watches: %w", err)
	}
	defer f.Close()
	open := map[string]event{} // by audit ID
	err = read(f, func(e event) {
		switch {
		case e.Verb != "watch" || e.Staged.After(at):
		case e.Stage == "ResponseStarted":
			open[e.AuditID] = e
		default:
			delete(open, e.AuditID)
		}
	})
	byWhat := map[string]Watch{}
	for _, e := range open {
		q := e.query()
		q.Del("resourceVersion")
		timeout, err := strconv.Atoi(q.Get("timeoutSeconds"))
		if err != nil {
			timeout = 0
		}
		q.Del("timeoutSeconds") // client-go chooses it at random, and says it twice
		q.Del("timeout")
		path, _, _ := strings.Cut(e.RequestURI, "?")
		byWhat[fmt.Sprint(e.caller(), path, q.Encode())] = Watch{e.caller(), e.Object.Resource, time.Duration(timeout) * time.Second}
	}
	return slices.Collect(maps.Values(byWhat)), err
}

func (e event) query() url.Values {
	u, err := url.ParseRequestURI(e.RequestURI)
	if err != nil {
		return url.Values{}
	}
	return u.Query()
}

// each calls use for every request once.
func each(r io.Reader, from, to time.Time, use func(event)) error {
	started := map[string]bool{}
	return read(r, func(e event) {
		if e.counts(started) && !e.Received.Before(from) && (to.IsZero() || e.Received.Before(to)) {
			use(e)
		}
	})
}

// read calls use for every event.
func read(r io.Reader, use func(event)) error {
	lines := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		var e event
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return fmt.Errorf("reading line %d of the audit log: %w", n, err)
		}
		use(e)
	}
}

// counts says whether this event is the one by which its request is counted: the first one with an answer.
func (e event) counts(started map[string]bool) bool {
	switch e.Stage {
	case "ResponseStarted":
		started[e.AuditID] = true
		return true
	case "ResponseComplete", "Panic":
		again := started[e.AuditID]
		delete(started, e.AuditID)
		return !again
	}
	return false
}

func (e event) caller() Caller {
	extra := func(key string) string {
		if v := e.User.Extra["authentication.kubernetes.io/"+key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	return Caller{User: e.User.Username, Pod: extra("pod-name"), Node: extra("node-name")}
}

func (e event) request() Request {
	r := Request{Verb: e.Verb, Resource: e.Object.Resource, Subresource: e.Object.Subresource, Code: e.Response.Code}
	if r.Resource == "" {
		r.Resource, _, _ = strings.Cut(e.RequestURI, "?") // not about a resource: /readyz, /api, …
	}
	return r
}

// Print writes a table, the busiest callers first.
func (c Counts) Print(w io.Writer, podsOnly bool) error {
	callers := slices.Collect(maps.Keys(c))
	slices.SortFunc(callers, func(a, b Caller) int {
		return cmp.Or(c.Total(b, nil)-c.Total(a, nil), cmp.Compare(a.User, b.User), cmp.Compare(a.Pod, b.Pod))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, caller := range callers {
		if podsOnly && caller.Pod == "" {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t\t%d\n", cmp.Or(caller.Pod, "-"), cmp.Or(caller.Node, "-"), caller.User, c.Total(caller, nil))
		requests := slices.Collect(maps.Keys(c[caller]))
		slices.SortFunc(requests, func(a, b Request) int {
			return cmp.Or(c[caller][b]-c[caller][a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
		})
		for _, r := range requests {
			what := r.Resource
			if r.Subresource != "" {
				what += "/" + r.Subresource
			}
			fmt.Fprintf(t, "\t\t%s %s\t%d\t%d\n", r.Verb, what, r.Code, c[caller][r])
		}
	}
	return t.Flush()
}
