package drains

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/lab/cluster"
)

const (
	webhookPods = 10
	webhookTime = 10 * time.Second // for which it denies
	webhookPort = "20443"
	webhookName = "drains.lab.kubebaton.io"
)

// webhook admits evictions or denies them with an HTTP status.
type webhook struct {
	server *http.Server
	done   chan struct{} // closed when the server has ended

	code  atomic.Int32 // of a denial
	until atomic.Pointer[time.Time]
}

// webhooks drains while a validating webhook denies every eviction: with 403, which is what a webhook answers that says
// nothing else, and with 429, which asks to come again.
func (b *bench) webhooks(ctx context.Context, config *rest.Config) (err error) {
	both, err := tools(config, agentLimits())
	if err != nil {
		return err
	}
	b.say("%d pods, a webhook that denies their eviction for %v.", webhookPods, webhookTime)
	if err := b.fill(ctx, webhookPods, atOnce()); err != nil {
		return err
	}
	w, err := b.serveWebhook(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.removeWebhook(context.WithoutCancel(ctx), w)) }()
	if err := b.register(ctx, config.CAData); err != nil {
		return err
	}
	for _, code := range []int32{http.StatusForbidden, http.StatusTooManyRequests} {
		for _, t := range both {
			w.deny(code, time.Now().Add(webhookTime))
			h, err := b.drain(ctx, t)
			if err != nil {
				return fmt.Errorf("draining with %s: %w", t.name, err)
			}
			end := h.from.Add(webhookTime)
			w.deny(0, time.Time{})
			if err := b.fill(ctx, webhookPods, atOnce()); err != nil {
				return err
			}
			row := Denial{Tool: t.name, Code: int(code), Pods: webhookPods, Through: h.err == nil, After: h.to.Sub(end).Seconds()}
			if row.Requests, err = b.requests(t, h); err != nil {
				return err
			}
			if err := h.failed(); err != nil {
				row.Error = err.Error()
			}
			b.report.Denials = append(b.report.Denials, row)
			b.say("%-8s %d: %s, %d requests", t.name, code, row.outcome(), row.Requests.Total)
		}
	}
	return nil
}

func (w *webhook) deny(code int32, until time.Time) {
	w.code.Store(code)
	w.until.Store(&until)
}

func (b *bench) serveWebhook(ctx context.Context) (*webhook, error) {
	cert, _, err := b.cluster.ServerTLS()
	if err != nil {
		return nil, err
	}
	l, err := b.cluster.Listen(ctx, "tcp", net.JoinHostPort(cluster.Gateway, webhookPort))
	if err != nil {
		return nil, fmt.Errorf("listening for the webhook: %w", err)
	}
	w := &webhook{done: make(chan struct{})}
	w.deny(http.StatusForbidden, time.Now().Add(time.Hour)) // until it is seen to deny
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}
	go func() {
		defer close(w.done)
		_ = w.server.ServeTLS(l, "", "") // ends with the server's Close
	}()
	return w, nil
}

// ServeHTTP answers one AdmissionReview.
func (w *webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(rw, "want an AdmissionReview", http.StatusBadRequest)
		return
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: !time.Now().Before(*w.until.Load())}
	if !answer.Allowed {
		answer.Result = &metav1.Status{Code: w.code.Load(), Message: "not now"}
	}
	review.Request, review.Response = nil, answer
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(review) // a caller that is gone gets no answer
}

// register returns when the API server asks the webhook.
func (b *bench) register(ctx context.Context, ca []byte) error {
	url := "https://" + net.JoinHostPort(cluster.Gateway, webhookPort) + "/"
	none, fail, seconds := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail, int32(5)
	_, err := b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: webhookName},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: webhookName, ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/eviction"}},
			}},
			SideEffects: &none, FailurePolicy: &fail, TimeoutSeconds: &seconds, AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("registering the webhook: %w", err)
	}
	probe := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: namespace, Name: "nobody"},
		DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}},
	}
	return until(ctx, "the webhook to be asked", func() (bool, error) {
		err := b.client.PolicyV1().Evictions(namespace).Evict(ctx, probe)
		return apierrors.IsForbidden(err), err
	})
}

func (b *bench) removeWebhook(ctx context.Context, w *webhook) error {
	err := b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, webhookName, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	err = errors.Join(err, w.server.Close())
	<-w.done
	return err
}
