package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCount(t *testing.T) {
	const account = "system:serviceaccount:baton-system:baton-agent"
	agentA := Caller{User: account, Pod: "agent-a", Node: "n1"}
	agentB := Caller{User: account, Pod: "agent-b", Node: "n2"}
	at := func(clock string) time.Time {
		when, err := time.Parse(time.DateTime, "2026-01-01 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	count := func(t *testing.T, from, to time.Time) Counts {
		t.Helper()
		counts, err := CountFile("testdata/audit.log", from, to)
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}

	t.Run("requests are counted per pod, a watch once, and a line half written not at all", func(t *testing.T) {
		want := Counts{
			agentA:          {{Verb: "get", Resource: "nodes", Code: 200}: 1, {Verb: "watch", Resource: "nodes", Code: 200}: 1, {Verb: "watch", Resource: "nodes", Code: 403}: 1},
			agentB:          {{Verb: "create", Resource: "pods", Subresource: "eviction", Code: 429}: 1, {Verb: "create", Resource: "pods", Subresource: "eviction", Code: 201}: 2},
			{User: "admin"}: {{Verb: "get", Resource: "/readyz", Code: 200}: 1},
		}
		if diff := cmp.Diff(want, count(t, time.Time{}, time.Time{})); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a request belongs to the interval in which it was received, its end excluded", func(t *testing.T) {
		counts := count(t, at("10:00:01"), at("10:00:03"))
		if got := counts.Total(agentA, nil); got != 1 {
			t.Errorf("%d requests of agent-a, want the watch", got)
		}
		if got := counts.Total(agentB, nil); got != 1 {
			t.Errorf("%d requests of agent-b, want the refused eviction", got)
		}
	})

	t.Run("a watch that started before the interval is not counted when it ends inside", func(t *testing.T) {
		if got := count(t, at("10:30:00"), at("11:00:00")).Total(agentA, nil); got != 0 {
			t.Errorf("%d requests, want 0", got)
		}
	})

	t.Run("a line that is no event is an error that names it", func(t *testing.T) {
		_, err := Count(strings.NewReader("{}\nnonsense\n"), time.Time{}, time.Time{})
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("error %v does not name line 2", err)
		}
	})

	t.Run("evictions are told one by one, with pod and answer", func(t *testing.T) {
		got, err := Evictions("testdata/audit.log", time.Time{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		var codes []int
		for _, e := range got {
			if e.Caller != agentB || e.Pod == "" {
				t.Errorf("%+v: want a named pod, evicted by agent-b", e)
			}
			codes = append(codes, e.Code)
		}
		if diff := cmp.Diff([]int{429, 201}, codes); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("programs that share a user are told apart by their User-Agent", func(t *testing.T) {
		const line = `{"stage":"ResponseComplete","verb":"get","userAgent":%q,"objectRef":{"resource":"pods"},"responseStatus":{"code":404}}` + "\n"
		path := filepath.Join(t.TempDir(), "audit.log")
		text := fmt.Sprintf(line, "a") + fmt.Sprintf(line, "b") + fmt.Sprintf(line, "a")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := CountUserAgent(path, "a", time.Time{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[Request]int{{Verb: "get", Resource: "pods", Code: 404}: 2}, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("the table of pods leaves people out", func(t *testing.T) {
		var b strings.Builder
		if err := count(t, time.Time{}, time.Time{}).Print(&b, true); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "admin") || !strings.Contains(b.String(), "create pods/eviction") {
			t.Errorf("table:\n%s", &b)
		}
	})
}

func TestWatching(t *testing.T) {
	const line = `{"auditID":%q,"stage":%q,"verb":"watch","requestURI":%q,"stageTimestamp":"2026-01-01T10:00:%02dZ","user":{"username":"agent"},"objectRef":{"resource":"nodes"}}` + "\n"
	const uri = "/api/v1/nodes?resourceVersion=%d&timeout=1h0m%ds&timeoutSeconds=36%02d&watch=true"
	path := filepath.Join(t.TempDir(), "audit.log")
	text := fmt.Sprintf(line, "1", "ResponseStarted", fmt.Sprintf(uri, 1, 1, 1), 1) +
		fmt.Sprintf(line, "2", "ResponseStarted", "/api/v1/pods?watch=true", 2) +
		fmt.Sprintf(line, "3", "ResponseStarted", fmt.Sprintf(uri, 7, 3, 3), 3) +
		fmt.Sprintf(line, "2", "ResponseComplete", "/api/v1/pods?watch=true", 4)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		second, want int
	}{
		"before the first":                        {0, 0},
		"both are there":                          {2, 2},
		"one that is asked for again counts once": {3, 2},
		"one has ended":                           {5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Watching(path, time.Date(2026, 1, 1, 10, 0, tc.second, 0, time.UTC))
			if err != nil || len(got) != tc.want {
				t.Fatalf("%v, error %v; want %d", got, err, tc.want)
			}
			if tc.second == 5 && got[0].Timeout.Round(time.Minute) != time.Hour {
				t.Errorf("timeout %v, want an hour", got[0].Timeout)
			}
		})
	}
}
