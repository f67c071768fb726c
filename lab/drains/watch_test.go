package drains

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func TestLife(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: nodeName}}
	ending := pod.DeepCopy()
	ending.DeletionTimestamp = &metav1.Time{Time: at(99)} // what it says is no matter: the time of its arrival is

	t.Run("a pod ends from the first word of it to its deletion", func(t *testing.T) {
		l := life{}.next(watch.Added, pod, at(0)).next(watch.Modified, ending, at(2)).next(watch.Modified, ending, at(3)).next(watch.Deleted, ending, at(7))
		if l.ending != at(2) || l.gone != at(7) || slowest([]life{l}) != 5*time.Second {
			t.Errorf("ending %v, gone %v", l.ending, l.gone)
		}
	})
	t.Run("one that is deleted at once took no time", func(t *testing.T) {
		if l := (life{}).next(watch.Added, pod, at(0)).next(watch.Deleted, pod, at(4)); slowest([]life{l}) != 0 || l.gone != at(4) {
			t.Errorf("ending %v, gone %v", l.ending, l.gone)
		}
	})
	t.Run("a drain is charged for what it took above the slowest pod, whenever that ended", func(t *testing.T) {
		lives := []life{
			{node: nodeName, ending: at(1), gone: at(6)},
			{node: nodeName, ending: at(4), gone: at(8)},
			{node: "other", ending: at(1), gone: at(60)},   // elsewhere
			{node: nodeName, ending: at(-9), gone: at(20)}, // before the drain
			{node: nodeName, ending: at(2)},                // not gone
		}
		h := heat{from: at(0), to: at(9), lives: ended(lives, nodeName, at(0))}
		if len(h.lives) != 2 || h.above() != 4*time.Second || h.total() != 9*time.Second {
			t.Errorf("%d lives, %v above of %v; want 2, 4s of 9s", len(h.lives), h.above(), h.total())
		}
	})
}

func TestFull(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tc := range []struct {
		name  string
		lives []life
		want  bool
	}{
		{"two that are ready, and one that has gone", []life{{ready: true}, {ready: true}, {ready: true, ending: now, gone: now}}, true},
		{"one is not ready", []life{{ready: true}, {}}, false},
		{"one too few", []life{{ready: true}}, false},
		{"one too many", []life{{ready: true}, {ready: true}, {ready: true}}, false},
		{"one still ends", []life{{ready: true}, {ready: true}, {ready: true, ending: now}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := full(tc.lives, 2); got != tc.want {
				t.Errorf("full: %t", got)
			}
		})
	}
}

func TestWebhook(t *testing.T) {
	ask := func(t *testing.T, w *webhook) *admissionv1.AdmissionResponse {
		t.Helper()
		body, err := json.Marshal(admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{UID: "u"}})
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body)))
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(rec.Body.Bytes(), &review); err != nil || review.Response == nil || review.Response.UID != "u" {
			t.Fatalf("%s, error %v", rec.Body, err)
		}
		return review.Response
	}
	w := &webhook{}
	t.Run("denies with the code until its time", func(t *testing.T) {
		w.deny(http.StatusTooManyRequests, time.Now().Add(time.Hour))
		if r := ask(t, w); r.Allowed || r.Result.Code != http.StatusTooManyRequests {
			t.Errorf("answer %+v", r)
		}
	})
	t.Run("and admits from then on", func(t *testing.T) {
		w.deny(http.StatusForbidden, time.Now())
		if r := ask(t, w); !r.Allowed {
			t.Errorf("answer %+v", r)
		}
	})
}
