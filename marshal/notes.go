package marshal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the marshal writes on its own Lease, up to three annotations a group: what is to be remembered of its canaries and of
// those that are away, and, for people, who waits for what. And one for those who wait: how many they are.

const (
	noteBytes = 512 // bounds the sentence for people
	noteAway  = 50  // bounds how many nodes of a group are remembered as away: those that are so for the longest time
)

// trialsOf reads the trials. One that cannot be read is none: its group is tried anew.
func trialsOf(annotations map[string]string) map[string]Trial {
	out := map[string]Trial{}
	for k, v := range annotations {
		group, ok := strings.CutPrefix(k, trialKey+".")
		var t Trial
		if ok && json.Unmarshal([]byte(v), &t) == nil {
			out[group] = t
		}
	}
	return out
}

// absentOf reads which cycles' nodes are away. What cannot be read is observed anew.
func absentOf(annotations map[string]string) map[string]time.Time {
	out := map[string]time.Time{}
	for k, v := range annotations {
		var of map[string]time.Time
		if strings.HasPrefix(k, awayKey+".") && json.Unmarshal([]byte(v), &of) == nil {
			maps.Copy(out, of)
		}
	}
	return out
}

// absent is what is to be remembered of those that are away: by group, then by cycle, because the same node may be away again in
// another one.
func (s *survey) absent() map[string]map[string]time.Time {
	left := slices.SortedFunc(maps.Keys(s.Away), func(a, b string) int { return s.Away[a].Compare(s.Away[b]) })
	out := map[string]map[string]time.Time{}
	for _, uid := range left {
		n := s.byUID[uid]
		if n == nil || n.Cycle == "" {
			continue
		}
		q := s.counts(n)
		if q == nil || len(out[q.Name]) == noteAway {
			continue
		}
		if out[q.Name] == nil {
			out[q.Name] = map[string]time.Time{}
		}
		out[q.Name][n.Cycle] = s.Now.Add(s.Away[uid].Sub(s.Own)).UTC().Truncate(time.Second)
	}
	return out
}

// standingOf reads how many agents stand for election besides the marshal. What cannot be read is not known, as 0 is.
func standingOf(annotations map[string]string) int {
	n, err := strconv.Atoi(annotations[standingKey])
	if err != nil {
		return 0
	}
	return n
}

// standing counts the nodes whose agents stand for election, and look whether there is still a marshal.
func (s *survey) standing() int {
	count := 0
	for i := range s.Nodes {
		if s.stands(&s.Nodes[i]) > 0 {
			count++
		}
	}
	return count
}

// notesOf are the keys of the marshal's annotations that go when nobody needs them.
func notesOf(annotations map[string]string) []string {
	var keys []string
	for k := range annotations {
		if strings.HasPrefix(k, trialKey+".") || strings.HasPrefix(k, awayKey+".") || strings.HasPrefix(k, waitingKey+".") {
			keys = append(keys, k)
		}
	}
	return keys
}

// notes are the annotations as they are to be; "" for one that is there and is to go.
func notes(trials map[string]Trial, away map[string]map[string]time.Time, verdicts []Verdict, standing int, there []string) map[string]string {
	out := map[string]string{standingKey: strconv.Itoa(standing)}
	for _, k := range there {
		out[k] = ""
	}
	for group, t := range trials {
		if text, err := json.Marshal(t); err == nil {
			out[trialKey+"."+group] = string(text)
		}
	}
	for group, of := range away {
		if text, err := json.Marshal(of); err == nil {
			out[awayKey+"."+group] = string(text)
		}
	}
	for group, text := range waiting(verdicts) {
		out[waitingKey+"."+group] = text
	}
	return out
}

// waiting says of each group how many of its nodes wait for what.
func waiting(verdicts []Verdict) map[string]string {
	counts := map[string]map[string]int{}
	first := map[[2]string]string{} // group and reason: what was said to the first
	for _, v := range verdicts {
		if v.Group == "" || v.Reason == "" {
			continue
		}
		if counts[v.Group] == nil {
			counts[v.Group] = map[string]int{}
		}
		counts[v.Group][v.Reason]++
		key := [2]string{v.Group, v.Reason}
		first[key] = cmp.Or(first[key], v.Message)
	}
	out := map[string]string{}
	for group, reasons := range counts {
		var parts []string
		for _, r := range slices.Sorted(maps.Keys(reasons)) {
			part := fmt.Sprintf("%d for %s", reasons[r], r)
			if said := first[[2]string{group, r}]; said != "" {
				part += " (" + said + ")"
			}
			parts = append(parts, part)
		}
		text := strings.Join(parts, "; ")
		if len(text) > noteBytes {
			const more = "…"
			text = strings.ToValidUTF8(text[:noteBytes-len(more)], "") + more
		}
		out[group] = text
	}
	return out
}
