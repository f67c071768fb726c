package search

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// A search of one's own instead of those of the tables:
//
//	go test ./internal/search -run TestSearch -v -timeout 0 -args -nodes 3 -marshals 2 -faults crash=1,lose=2,lag=1
var (
	ownFaults   = flag.String("faults", "", "search with these `faults`, as crash=1,lose=2; none for none")
	ownNodes    = flag.Int("nodes", 2, "with so many `nodes`")
	ownSlots    = flag.Int("slots", 1, "with so many `slots`")
	ownMarshals = flag.Int("marshals", 1, "with so many `marshals`")
	ownRule     = flag.String("rule", "", "with this `rule` switched off, which must be missed")
	ownDepth    = flag.Int("depth", 0, "no further than so many `steps`")
	ownStates   = flag.Int("states", 0, "no more than so many `states`")
)

// rulesOff says for each way to break a rule with which faults something happens that must never be, and what. With the
// same faults and all rules nothing of the kind happens.
var rulesOff = map[string]struct{ faults, broken string }{
	"1":  {"lose=1", freedCordon},
	"2":  {"crash=1", freedGoing},
	"3":  {"twin=1,pause=1", noCordon},
	"4":  {"lose=1,hold=1", freedCordon},
	"5a": {"crash=1", unproven},
	"5b": {"crash=1", unproven},
	"6":  {"stall=2,delete=1", noSlot},
	"7a": {"crash=1", freedCordon},
	"7b": {"cordon=1", foreign},
	"7c": {"uncordon=1", noCordon},
	"8":  {"crash=1", noWay},
}

// rulesOn are searches in which all rules hold. States limits one that is too big for every day.
var rulesOn = []struct {
	nodes, slots, marshals int
	faults                 string
	states                 int
}{
	{2, 1, 1, "crash=2,lose=2", 0},
	{2, 1, 1, "lose=1,stall=1,delete=1", 0},
	{2, 1, 1, "lose=1,delete=1,clear=1", 0},
	{2, 1, 1, "crash=1,lose=1,scrap=1", 0},
	{2, 1, 1, "crash=1,leave=1,refuse=1", 0},
	{2, 1, 1, "crash=1,power=1,refuse=1", 0},
	{2, 1, 1, "crash=1,mute=1,refuse=1", 0},
	{2, 1, 1, "sick=1,survive=1,late=1,ack=1", 0},
	{2, 1, 1, "lose=1,update=1,ack=1", 0},
	{2, 1, 1, "lose=1,refuse=1,late=1", 0},
	{2, 1, 1, "lose=1,mute=1,refuse=1", 0},
	{2, 1, 1, "crash=1,lose=1,sick=1,late=1", 0},
	{2, 1, 1, "crash=1,strip=1", 0},
	{2, 1, 1, "lose=1,cordon=1,uncordon=1", 0},
	{2, 1, 1, "late=1,hold=1,clear=1", 0},
	{2, 1, 1, "crash=1,pause=1,release=1", 0},
	{2, 1, 2, "lag=1,delete=1", 0},
	{2, 2, 1, "lose=1,remove=1", 0},
	{3, 2, 1, "crash=1,lose=1", 0},
	{3, 1, 2, "lose=1,lag=1", 0},
	{3, 1, 2, "crash=1,lag=1,delete=1", 0},
	{3, 1, 2, "crash=1,lose=1,stall=1,lag=1,delete=1", 30_000},
}

func TestSearch(t *testing.T) {
	s := sheet{edges: map[string]bool{}}
	if *ownFaults != "" || *ownRule != "" {
		c := Config{
			Nodes: *ownNodes, Slots: *ownSlots, Marshals: *ownMarshals, Faults: faultsOf(t, *ownFaults), Off: *ownRule,
			Depth: *ownDepth, States: *ownStates,
		}
		c.Ends = c.Depth == 0 && c.States == 0
		if r := s.search(t, c, *ownFaults); (r.Broken == "") != (c.Off == "") {
			t.Errorf("with rule %q off it found %q", c.Off, r.Broken)
		}
		s.print(t)
		return
	}
	t.Run("searches", func(t *testing.T) {
		for _, rule := range allRules() {
			t.Run(fmt.Sprintf("rule %s is missed when %s", rule.name, rule.says), func(t *testing.T) {
				t.Parallel()
				x, ok := rulesOff[rule.name]
				if !ok {
					t.Fatal("no search is made without it")
				}
				c := Config{Nodes: 2, Slots: 1, Marshals: 1, Faults: faultsOf(t, x.faults), Off: rule.name, Ends: true}
				if r := s.search(t, c, x.faults); r.Broken != x.broken {
					t.Errorf("it found %q, not %q", r.Broken, x.broken)
				}
				c.Off = ""
				if r := s.search(t, c, x.faults); r.Broken != "" {
					t.Errorf("with all rules it found %q", r.Broken)
				}
			})
		}
		for _, x := range rulesOn {
			t.Run(fmt.Sprintf("nothing breaks %d nodes, %d slots and %d marshals by %s", x.nodes, x.slots, x.marshals, x.faults), func(t *testing.T) {
				t.Parallel()
				c := Config{
					Nodes: x.nodes, Slots: x.slots, Marshals: x.marshals, Faults: faultsOf(t, x.faults), States: x.states, Ends: x.states == 0,
				}
				if r := s.search(t, c, x.faults); r.Broken != "" || r.Truncated != (x.states > 0) {
					t.Errorf("it found %q; truncated: %t", r.Broken, r.Truncated)
				}
				s.passed()
			})
		}
	})
	s.print(t)
	if s.on == len(rulesOn) && len(s.edges) != edges {
		t.Errorf("of the %d edges of the cycle the searches took %d: %q", edges, len(s.edges), slices.Sorted(maps.Keys(s.edges)))
	}
}

// edges are those of the table in agent/phase.go: a search that does not take one shows nothing of it.
const edges = 20

// faultsOf reads a list like crash=1,lose=2.
func faultsOf(t *testing.T, list string) map[Fault]int {
	t.Helper()
	faults := map[Fault]int{}
	if list == "" || list == "none" {
		return faults
	}
	for item := range strings.SplitSeq(list, ",") {
		name, times, _ := strings.Cut(item, "=")
		n, err := strconv.Atoi(times)
		f := Fault(0)
		for f < faultKinds && f.String() != name {
			f++
		}
		if f == faultKinds || err != nil || n < 0 || n > 9 {
			t.Fatalf("%q is no fault and number from 0 to 9", item)
		}
		faults[f] = n
	}
	return faults
}

// sheet is the table of all searches.
type sheet struct {
	mu    sync.Mutex
	rows  []string
	edges map[string]bool // of the cycle that were taken while all rules held
	on    int             // searches of rulesOn that were made
	seen  int             // states, of all searches
}

func (s *sheet) passed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on++
}

func (s *sheet) search(t *testing.T, c Config, faults string) Report {
	t.Helper()
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	rule, found, all := "", cmp.Or(r.Broken, "nothing"), "complete"
	if c.Off != "" {
		rule = "without rule " + c.Off
	}
	switch {
	case r.Broken != "":
		all = "stopped"
		t.Logf("%s:\n\t%s", r.Broken, strings.Join(r.Trace, "\n\t"))
	case r.Truncated:
		all = "truncated"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen += r.States
	s.rows = append(s.rows, fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%.1f\t%.0f\t%s", c.Nodes, c.Slots, c.Marshals, faults, rule,
		r.Depth, r.States, all, r.Took.Seconds(), float64(r.States)/r.Took.Seconds(), found))
	for _, m := range r.Moves {
		if edge, _, _ := strings.Cut(m, ":"); c.Off == "" {
			s.edges[edge] = true
		}
	}
	return r
}

func (s *sheet) print(t *testing.T) {
	t.Helper()
	slices.Sort(s.rows)
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "nodes\tslots\tmarshals\tfaults\t\tdepth\tstates\t\tseconds\tstates/s\tfound")
	for _, r := range slices.Compact(s.rows) {
		fmt.Fprintln(w, r)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + b.String())
	t.Attr("searches", fmt.Sprintf("%d, of %d states", len(s.rows), s.seen))
}
