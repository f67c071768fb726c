package apitest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// AssetsVar names the environment variable with the directory that holds etcd and kube-apiserver.
const AssetsVar = "KUBEBUILDER_ASSETS"

// startTimeout bounds the start of each process. A shared machine with two cores needs 5 to 20 s when it is busy.
const startTimeout = 2 * time.Minute

// Start runs etcd and kube-apiserver and waits until the server answers. Each flag is a kube-apiserver argument as on
// its command line, `--name=value`; it replaces the default of that name. stop ends both processes and removes their
// files; it is never nil.
func Start(flags ...string) (cfg *rest.Config, stop func(), err error) {
	stop = func() {}
	if err := assets(); err != nil {
		return nil, stop, err
	}
	env := &envtest.Environment{ControlPlaneStartTimeout: startTimeout, ControlPlaneStopTimeout: startTimeout}
	args := env.ControlPlane.GetAPIServer().Configure()
	args.Set("authorization-mode", "Node,RBAC")
	args.Set("enable-admission-plugins", "NodeRestriction")
	for _, f := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if !ok || name == "" || !strings.HasPrefix(f, "--") {
			return nil, stop, fmt.Errorf("API server argument %q: want --name=value", f)
		}
		args.Set(name, value)
	}
	cfg, err = env.Start()
	if err != nil {
		return nil, stop, errors.Join(fmt.Errorf("starting the API server from %s: %w", os.Getenv(AssetsVar), err), env.Stop())
	}
	return cfg, func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintf(os.Stderr, "stopping the API server: %v\n", err)
		}
	}, nil
}

// assets reports what is missing before envtest would look elsewhere or fail with the bare name of a file.
func assets() error {
	dir := os.Getenv(AssetsVar)
	if dir == "" {
		return fmt.Errorf("this test needs a real API server and %s is not set: run `make test`, "+
			"or set it to a directory that holds etcd and kube-apiserver", AssetsVar)
	}
	var missing []error
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			missing = append(missing, err)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this test needs a real API server and %s=%s lacks a part of it: run `make test`: %w",
			AssetsVar, dir, errors.Join(missing...))
	}
	return nil
}
