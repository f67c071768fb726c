package marshal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What the marshal writes on its own Lease, a pair of annotations a group: what is to be remembered of its canaries, and, for
// people, who waits for what.

// noteBytes bounds the sentence for people.
const noteBytes = 512

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

// notesOf are the keys of the marshal's annotations.
func notesOf(annotations map[string]string) []string {
	var keys []string
	for k := range annotations {
		if strings.HasPrefix(k, trialKey+".") || strings.HasPrefix(k, waitingKey+".") {
			keys = append(keys, k)
		}
	}
	return keys
}

// notes are the annotations as they are to be; "" for one that is there and is to go.
func notes(trials map[string]Trial, verdicts []Verdict, there []string) map[string]string {
	out := map[string]string{}
	for _, k := range there {
		out[k] = ""
	}
	for group, t := range trials {
		if text, err := json.Marshal(t); err == nil {
			out[trialKey+"."+group] = string(text)
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
			text = strings.ToValidUTF8(text[:noteBytes-3], "") + "..."
		}
		out[group] = text
	}
	return out
}
