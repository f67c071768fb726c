package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"kubebaton.io/baton/lab/build"
)

// installAddons creates the DaemonSets of the pod network and of kube-proxy.
func (c *Cluster) installAddons(ctx context.Context) error {
	text, err := file("addons.yaml", "PROXY_IMAGE", c.Proxy, "CNI_IMAGE", build.CNIImage)
	if err != nil {
		return err
	}
	config, err := c.RestConfig()
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var u unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			return err
		}
		kind := u.GroupVersionKind()
		resource := client.Resource(schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: strings.ToLower(kind.Kind) + "s"})
		create := resource.Create
		if u.GetNamespace() != "" {
			create = resource.Namespace(u.GetNamespace()).Create
		}
		if err := createWhenAble(ctx, &u, create); err != nil {
			return fmt.Errorf("creating %s %q: %w", kind.Kind, u.GetName(), err)
		}
	}
	return nil
}

// createWhenAble waits for the namespace, which the API server makes a moment after it is ready.
func createWhenAble(ctx context.Context, u *unstructured.Unstructured,
	create func(context.Context, *unstructured.Unstructured, metav1.CreateOptions, ...string) (*unstructured.Unstructured, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return until(ctx, "namespace "+u.GetNamespace(), 50*time.Millisecond, func() (bool, error) {
		_, err := create(ctx, u, metav1.CreateOptions{})
		return !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err), err
	})
}

// waitReady returns when every one of the nodes is Ready.
func (c *Cluster) waitReady(ctx context.Context, nodes []string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return until(ctx, "the nodes", 100*time.Millisecond, func() (bool, error) {
		list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		left := slices.Clone(nodes)
		for _, n := range list.Items {
			if nodeReady(&n) {
				left = slices.DeleteFunc(left, func(name string) bool { return name == n.Name })
			}
		}
		if len(left) == 0 {
			return true, nil
		}
		return false, fmt.Errorf("not Ready: %s", strings.Join(left, ", "))
	})
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// waitAddons returns when every node has its pods of the addons, and pods can be made in the default namespace.
func (c *Cluster) waitAddons(ctx context.Context, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return until(ctx, "kube-proxy and the pod network", 100*time.Millisecond, func() (bool, error) {
		if _, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return false, err
		}
		sets, err := c.client.AppsV1().DaemonSets("kube-system").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		var late []error
		for _, s := range sets.Items {
			if int(s.Status.NumberReady) < nodes {
				late = append(late, fmt.Errorf("DaemonSet %s: %d of %d ready", s.Name, s.Status.NumberReady, nodes))
			}
		}
		return len(late) == 0 && len(sets.Items) == 2, errors.Join(late...)
	})
}

// markControlPlane labels and taints nodes as kubeadm does.
func (c *Cluster) markControlPlane(ctx context.Context, nodes []string) error {
	const patch = `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}},"spec":{"taints":[{"key":"node-role.kubernetes.io/control-plane","effect":"NoSchedule"}]}}`
	for _, node := range nodes {
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		err := until(waiting, "node "+node+" to register", 50*time.Millisecond, func() (bool, error) {
			_, err := c.client.CoreV1().Nodes().Patch(waiting, node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
			return !apierrors.IsNotFound(err), err
		})
		cancel()
		if err != nil {
			return fmt.Errorf("marking node %q as control plane: %w", node, err)
		}
	}
	return nil
}

// AddNode adds a node, waits until it is Ready and returns its name.
func (c *Cluster) AddNode(ctx context.Context) (string, error) {
	node, err := c.prepareNode(ctx)
	if err != nil {
		return "", err
	}
	if err := c.switchOn(node); err != nil {
		return "", err
	}
	return node, c.waitReady(ctx, []string{node})
}

// RemoveNode cuts a node's power, removes its machine for good and deletes its Node.
func (c *Cluster) RemoveNode(ctx context.Context, node string) error {
	if err := c.Power(ctx, node, Off); err != nil {
		return err
	}
	groups, err := c.groups()
	if err != nil {
		return err
	}
	for _, g := range groups {
		waiting, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := until(waiting, "the control groups of node "+node, 5*time.Millisecond, func() (bool, error) {
			err := removeGroup(g + "/" + node)
			return err == nil, err
		})
		cancel()
		if err != nil {
			return err
		}
	}
	dir := c.path("nodes", node)
	if err := errors.Join(build.UnmountBelow(dir), os.RemoveAll(dir)); err != nil {
		return err
	}
	if err := c.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
