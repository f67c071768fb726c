// Package deploy_test applies deploy/base to a real API server and asks of it, with tokens as a kubelet would mint them,
// what an agent may do and what a stolen token may not.
package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"

	"kubebaton.io/baton/internal/apitest"
)

const (
	namespace = "baton-system"
	account   = "baton-agent"
)

// api is the server that every test of this package shares, as an administrator sees it.
var api *rest.Config

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	cfg, stop, err := apitest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	api = cfg
	if err := apply(context.Background(), cfg, "base"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// manifests returns the objects of a kustomization that only lists resources, in its order.
func manifests(dir string) ([]*unstructured.Unstructured, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var k struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Resources  []string `json:"resources"`
	}
	// Strict: a generator or a patch would make what is tested differ from what is applied.
	if err := sigsyaml.UnmarshalStrict(raw, &k); err != nil {
		return nil, fmt.Errorf("reading the kustomization of %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, name := range k.Resources {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
		for {
			u := &unstructured.Unstructured{}
			if err := docs.Decode(&u.Object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("reading %s/%s: %w", dir, name, err)
			}
			objects = append(objects, u)
		}
	}
	return objects, nil
}

// apply creates every object as it stands in the files; unknown and duplicate fields are errors.
func apply(ctx context.Context, cfg *rest.Config, dir string) error {
	objects, err := manifests(dir)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	groups, err := restmapper.GetAPIGroupResources(clients.Discovery())
	if err != nil {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for _, u := range objects {
		gvk := u.GroupVersionKind()
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return err
		}
		_, err = dyn.Resource(m.Resource).Namespace(u.GetNamespace()).Create(ctx, u, metav1.CreateOptions{FieldValidation: "Strict"})
		if err != nil {
			return fmt.Errorf("creating %s %q: %w", gvk.Kind, u.GetName(), err)
		}
	}
	return nil
}

// admin returns the administrator's clients.
func admin(t *testing.T) kubernetes.Interface {
	t.Helper()
	return clientsFor(t, api)
}

func clientsFor(t *testing.T, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// An agent is a Node, the agent's pod on it and that pod's token.
type agent struct {
	node, uid string
	config    *rest.Config
	kubernetes.Interface
}

// as returns clients that impersonate a user with the agent's token.
func (a agent) as(t *testing.T, user string) kubernetes.Interface {
	t.Helper()
	cfg := rest.CopyConfig(a.config)
	cfg.Impersonate.UserName = user
	return clientsFor(t, cfg)
}

// newAgent registers a node with an agent on it; both are gone when the test ends.
func newAgent(t *testing.T, name string) agent {
	t.Helper()
	ctx, clients := t.Context(), admin(t)
	node, err := clients.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clients.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	pod := newPod(t, namespace, account+"-"+name, name)
	token, err := clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := withToken(token.Status.Token)
	return agent{node: name, uid: string(node.UID), config: cfg, Interface: clientsFor(t, cfg)}
}

func withToken(token string) *rest.Config {
	cfg := rest.AnonymousClientConfig(api)
	cfg.BearerToken = token
	cfg.QPS = -1
	return cfg
}

// unbound returns clients with a token of the agents' account that names no node.
func unbound(t *testing.T) kubernetes.Interface {
	t.Helper()
	token, err := admin(t).CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return clientsFor(t, withToken(token.Status.Token))
}

// newPod creates a pod of the agents' account, bound to a node.
// newPod makes a pod of the agents' account on a node, with volumes of these claims.
func newPod(t *testing.T, ns, name, node string, claims ...string) *corev1.Pod {
	t.Helper()
	clients := admin(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns},
		Spec: corev1.PodSpec{
			NodeName:           node,
			ServiceAccountName: account,
			Containers:         []corev1.Container{{Name: "c", Image: "i"}},
		},
	}
	for _, c := range claims {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: c, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c},
		}})
	}
	pod, err := clients.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now := metav1.NewDeleteOptions(0) // there is no kubelet to end it
		err := clients.CoreV1().Pods(ns).Delete(context.Background(), name, *now)
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return pod
}

// newClaim makes a claim in `default` and the volume it is bound to, both of this name.
func newClaim(t *testing.T, name string) {
	t.Helper()
	core, ctx := admin(t).CoreV1(), t.Context()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err := core.PersistentVolumes().Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, ClaimRef: &corev1.ObjectReference{Namespace: "default", Name: name},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "example.com", VolumeHandle: name}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = core.PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, VolumeName: name, Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks again until ok or a minute is over: policies, bindings, parameters and the node authorizer's view of
// the pods reach the API server by its own watches.
func eventually(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = ok(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v; last: %v", what, err, last)
	}
}

// refused returns nil when err is a refusal for the given reason.
func refused(err error, why string) error {
	switch {
	case err == nil:
		return fmt.Errorf("allowed, want it refused: %s", why)
	case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), why):
		return fmt.Errorf("got %w, want it forbidden: %s", err, why)
	}
	return nil
}

// check fails the test unless err is what want says: "" allowed, else refused with that message.
func check(t *testing.T, err error, want string) {
	t.Helper()
	if want != "" {
		err = refused(err, want)
	}
	if err != nil {
		t.Error(err)
	}
}
