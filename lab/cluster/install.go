package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Install loads the agent's image into all nodes, applies a kustomize directory as it is and waits until the DaemonSets of
// namespace baton-system are rolled out.
func (c *Cluster) Install(ctx context.Context, tar, dir string) error {
	for _, path := range []string{tar, dir} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("installing (make image writes the image): %w", err)
		}
	}
	if err := c.Load(ctx, tar); err != nil {
		return err
	}
	if out, err := c.Command(ctx, "kubectl", "apply", "-k", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("applying %s: %w\n%s", dir, err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return until(ctx, "the agents", 100*time.Millisecond, func() (bool, error) { return c.rolledOut(ctx, "baton-system") })
}

func (c *Cluster) rolledOut(ctx context.Context, namespace string) (bool, error) {
	sets, err := c.client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	if len(sets.Items) == 0 {
		return false, fmt.Errorf("no DaemonSet in namespace %s", namespace)
	}
	var late []error
	for _, s := range sets.Items {
		st := s.Status
		if st.ObservedGeneration < s.Generation || st.DesiredNumberScheduled == 0 || st.UpdatedNumberScheduled < st.DesiredNumberScheduled || st.NumberAvailable < st.DesiredNumberScheduled {
			late = append(late, fmt.Errorf("DaemonSet %s: %d of %d available", s.Name, st.NumberAvailable, st.DesiredNumberScheduled))
		}
	}
	return len(late) == 0, errors.Join(late...)
}

// Overlay makes dir a kustomize directory that is the other one but for one line of Baton's configuration.
func Overlay(dir, deploy, line string) error {
	var paths [2]string // without symbolic links, which `..` would follow
	for i, path := range []string{dir, deploy} {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		if paths[i], err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	base, err := filepath.Rel(paths[0], paths[1])
	if err != nil {
		return err
	}
	const text = `resources: [%s]
patches:
- patch: |
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: baton-config, namespace: baton-system}
    data:
      config.yaml: |
        apiVersion: kubebaton.io/v1alpha1
        kind: RebootConfiguration
        %s
`
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, text, base, line), 0o600)
}
