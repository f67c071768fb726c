package agent

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRecord(t *testing.T) {
	t.Run("what a newer agent added survives every write of this one", func(t *testing.T) {
		s := newSim(t)
		s.goesAfter = time.Second
		marked := 0
		s.after = func(string) {
			r := s.node.Record
			switch {
			case r == "", marked == 0 && s.recordLocked().Phase != Draining:
			case marked == 0: // as the newer agent would have written it
				s.node.Record = strings.Replace(strings.Replace(r, `{"`, `{"color":{"is":["blue"]},"`, 1), `"settings":{`, `"settings":{"pace":7,`, 1)
				s.touch()
				marked++
			default:
				marked++
				if !strings.Contains(r, `"color":{"is":["blue"]}`) || !strings.Contains(r, `"pace":7`) {
					t.Errorf("lost in %s", r)
				}
			}
		}
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if marked < 5 {
			t.Errorf("%d writes of a record were looked at", marked)
		}
	})
	t.Run("a record is read as it was written", func(t *testing.T) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		r := &Record{
			Version: RecordVersion, Instance: "i", Cycle: "c", Attempt: 3, Phase: Verifying, Since: now, Pending: now, Reasons: []Reason{ReasonRebooted},
			Message: "m", BootID: "b1", NewBootID: "b2", Cordon: CordonForeign, Slot: "slot-workers-0", Group: "workers", Deadline: now,
			Down: now, Pods: []string{"daemonset/a/b@1"}, Allocatable: map[string]int64{"x/y": 2}, Settings: testSettings(),
		}
		text, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseRecord(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got, cmp.AllowUnexported(Record{}, Settings{}), cmp.Transformer("none", func(f fields) int { return len(f) })); d != "" {
			t.Error(d)
		}
	})
	for name, text := range map[string]string{
		"no JSON":                  `{"version":`,
		"a list":                   `[]`,
		"no version":               `{"cycle":"c","bootID":"b","phase":"Draining"}`,
		"a phase that is not one":  `{"version":1,"cycle":"c","bootID":"b","phase":"Sleeping"}`,
		"no cycle":                 `{"version":1,"bootID":"b","phase":"Draining"}`,
		"no boot ID":               `{"version":1,"cycle":"c","phase":"Draining"}`,
		"a number for a text":      `{"version":1,"cycle":7,"bootID":"b","phase":"Draining"}`,
		"a newer version":          `{"version":2,"cycle":"c","bootID":"b","phase":"Draining"}`,
		"settings that are a text": `{"version":1,"cycle":"c","bootID":"b","phase":"Draining","settings":"x"}`,
	} {
		t.Run("nothing is touched for "+name+", and the slot is kept", func(t *testing.T) {
			s := newSim(t)
			s.node.Record, s.node.Unschedulable = text, true
			s.slot.Holder, s.slot.HolderUID, s.slot.Nominee, s.slot.BootID = "n1", s.node.UID, s.node.UID, s.bootID()
			s.live(24*time.Hour, func() {
				s.raise("a")
				pass(time.Hour)
				s.with(func() { s.cut() }) // nor by the agent that comes next
				pass(time.Hour)
				s.rebootNow() // nor on another boot
			})
			if s.effects != 0 || s.node.Record != text || s.slot.Holder != "n1" {
				t.Errorf("effects: %v", s.log)
			}
		})
	}
}

// oldRecords are records as agents of each version wrote them, one of every phase: never changed, only added to.
const oldRecords = "testdata/records"

// An agent finishes what any agent before it began, whatever the phase, on the same boot and on another one.
func TestRecordsOfEarlierVersions(t *testing.T) {
	if *update {
		writeRecords(t)
	}
	files, err := filepath.Glob(filepath.Join(oldRecords, "v*.json"))
	if err != nil {
		t.Fatal(err)
	}
	phases := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, rebooted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rebooted since %v", filepath.Base(file), rebooted), func(t *testing.T) {
				s := newSim(t)
				s.node.Record = strings.TrimSpace(string(text))
				r := s.recordLocked()
				phases[fmt.Sprintf("%d %s", r.Version, r.Phase)] = true
				s.boot = map[string]int{"boot-1": 1, "boot-2": 2}[max(r.BootID, r.NewBootID)]
				if rebooted {
					s.boot++
				}
				s.node.BootID, s.node.Phase, s.node.Tainted = s.bootID(), strings.ToLower(string(r.Phase)), true
				s.node.Unschedulable = r.Cordon == CordonBaton
				if r.Phase != Waiting && r.Phase != Backoff {
					s.slot.Holder, s.slot.HolderUID, s.slot.Nominee, s.slot.BootID = "n1", s.node.UID, s.node.UID, r.BootID
					s.slot.Cycle, s.slot.Attempt, s.slot.Cordon = r.Cycle, r.Attempt, r.Cordon
				}
				s.liveUntil(20*24*365*time.Hour, nil, s.quiet)
				s.settled(t, s.reboots)
				if n, _, _ := s.state(); n.Unschedulable {
					t.Error("still cordoned")
				}
			})
		}
	}
	for _, p := range []Phase{Waiting, Draining, Rebooting, Verifying, Backoff, Failed} {
		if !phases[fmt.Sprintf("%d %s", RecordVersion, p)] {
			t.Errorf("no record of version %d in %s: write one by -update", RecordVersion, p)
		}
	}
}

// writeRecords keeps a record of every phase as this version writes it.
func writeRecords(t *testing.T) {
	t.Helper()
	s := newSim(t)
	s.refuse, s.missing = ErrInhibited, []string{"daemonset/kube-system/net"}
	seen := map[Phase]string{}
	s.after = func(string) {
		if r := s.recordLocked(); r.Phase != "" {
			seen[r.Phase] = s.node.Record
		}
	}
	s.live(6*time.Hour, func() {
		s.raise("a")
		pass(time.Minute)
		s.with(func() { s.refuse = nil })
	})
	if err := os.MkdirAll(oldRecords, 0o755); err != nil {
		t.Fatal(err)
	}
	for phase, text := range seen {
		if !json.Valid([]byte(text)) {
			t.Fatalf("no record: %s", text)
		}
		name := filepath.Join(oldRecords, fmt.Sprintf("v%d-%s.json", RecordVersion, strings.ToLower(string(phase))))
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheHistoryHasRoomForTwentyCycles(t *testing.T) {
	var h History
	for range historyEntries + 5 {
		h = h.with(Entry{
			Cycle: rand.Text(), At: time.Now().UTC(), Result: ReasonRebooted, Reason: "/run/reboot-required", Downtime: 23_456 * time.Millisecond,
			Took: 123_456 * time.Millisecond, Evicted: 123, Rebooted: true, Fingerprint: "014ac0da23bb9222d0d7828e004d4e20", Wished: time.Now().UTC(),
		})
	}
	text, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	got := parseHistory(text)
	if n := len(got.Cycles); n != historyEntries || len(text) > historyBytes {
		t.Errorf("%d cycles in %d bytes, want %d in at most %d", n, len(text), historyEntries, historyBytes)
	}
	if last := got.Cycles[len(got.Cycles)-1]; last.Fingerprint == "" || last.Wished.IsZero() {
		t.Errorf("the last one has lost what is asked of it: %+v", last)
	}
}
