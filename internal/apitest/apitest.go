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

// Bounds of the start and the stop of each process. A shared machine with two cores needs 5 to 20 s for a start when it is
// busy. A stop waits for open watches, which clients that are tested have no reason to close; then the process is killed.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 3 * time.Second
)

// Start runs etcd and kube-apiserver and waits until the server answers. Each flag is a kube-apiserver argument as on
// its command line, `--name=value`; it replaces the default of that name. stop ends both processes and removes their
// files; it is never nil.
func Start(flags ...string) (cfg *rest.Config, stop func(), err error) {
	s, err := Run(flags...)
	if err != nil {
		return nil, func() {}, err
	}
	return s.Config, s.Close, nil
}

// Server is an API server that may be away for a while.
type Server struct {
	Config *rest.Config // the same before and after

	env envtest.Environment
	dir string // of etcd's data and of the certificates
}

// Run is Start for who wants to stop the server and start it again.
func Run(flags ...string) (*Server, error) {
	if err := assets(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "apitest")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the API server: %w", err)
	}
	s := &Server{dir: dir, env: envtest.Environment{ControlPlaneStartTimeout: startTimeout, ControlPlaneStopTimeout: stopTimeout}}
	s.env.ControlPlane.Etcd = &envtest.Etcd{DataDir: filepath.Join(dir, "etcd")}
	server := s.env.ControlPlane.GetAPIServer()
	server.CertDir = filepath.Join(dir, "certificates")
	if err := s.prepare(flags); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if s.Config, err = s.env.Start(); err != nil {
		err = fmt.Errorf("starting the API server from %s: %w", os.Getenv(AssetsVar), err)
		return nil, errors.Join(err, s.env.Stop(), os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) prepare(flags []string) error {
	args := s.env.ControlPlane.GetAPIServer().Configure()
	args.Set("authorization-mode", "Node,RBAC")
	args.Set("enable-admission-plugins", "NodeRestriction")
	for _, f := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if !ok || name == "" || !strings.HasPrefix(f, "--") {
			return fmt.Errorf("API server argument %q: want --name=value", f)
		}
		args.Set(name, value)
	}
	for _, dir := range []string{s.env.ControlPlane.Etcd.DataDir, s.env.ControlPlane.GetAPIServer().CertDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("making a directory for the API server: %w", err)
		}
	}
	return nil
}

// Down ends both processes, in an orderly way if they end within seconds, and keeps what is stored.
func (s *Server) Down() {
	_ = s.env.Stop() // what does not end in time is killed, and that is all that the error says
}

// Up starts both again, with the same data, address and certificates, and returns when they answer.
func (s *Server) Up() error {
	etcd, server := s.env.ControlPlane.Etcd, s.env.ControlPlane.GetAPIServer()
	if err := etcd.Start(); err != nil {
		return fmt.Errorf("starting etcd again: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("starting the API server again: %w", err)
	}
	return nil
}

// Save copies what is stored, while the server is down.
func (s *Server) Save() error { return s.copy("etcd", "saved") }

// Restore puts back what Save has copied, while the server is down.
func (s *Server) Restore() error { return s.copy("saved", "etcd") }

func (s *Server) copy(from, to string) error {
	target := filepath.Join(s.dir, to)
	if err := errors.Join(os.RemoveAll(target), os.CopyFS(target, os.DirFS(filepath.Join(s.dir, from)))); err != nil {
		return fmt.Errorf("copying the API server's data: %w", err)
	}
	return nil
}

// Close ends both processes and removes their files.
func (s *Server) Close() {
	s.Down()
	if err := os.RemoveAll(s.dir); err != nil {
		fmt.Fprintf(os.Stderr, "removing the API server's files: %v\n", err)
	}
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
