package badline

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stream is the body of a watch, which may be frozen.
type stream struct {
	io.ReadCloser
	line    *Line
	request *Request
	ctx     context.Context //nolint:containedctx // of the request that the body belongs to
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	for s.ctx.Err() == nil { // a watch that was cut brings nothing, not even what had come already
		s.line.mu.Lock()
		frozen, changed := s.line.frozen, s.line.changed
		s.line.mu.Unlock()
		if frozen == nil || !frozen(s.request) {
			return n, err
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
		}
	}
	return 0, s.ctx.Err()
}

// answer writes a Status as the API server does.
func (l *Line) answer(w http.ResponseWriter, f Fate) {
	l.mu.Lock()
	now := time.Now().Add(l.shift)
	l.mu.Unlock()
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/json")
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.retryAfter.Seconds())))
	}
	w.WriteHeader(f.code)
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(f.code), //nolint:gosec // a status code
		Reason: map[int]metav1.StatusReason{
			http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusInternalServerError: metav1.StatusReasonInternalError,
		}[f.code],
		Message: "answered by the line",
	}
	if f.retryAfter > 0 { // the API server says it here too
		status.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(f.retryAfter.Seconds())}
	}
	_ = json.NewEncoder(w).Encode(status) // a client that is gone reads nothing
}

// nowhere takes an answer that nobody waits for.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Flush()                      {}
