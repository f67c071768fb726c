package apitest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/internal/apitest"
)

func TestStart(t *testing.T) {
	t.Run("without the variable it says how to get the binaries", func(t *testing.T) {
		t.Setenv(apitest.AssetsVar, "")
		_, stop, err := apitest.Start()
		defer stop()
		if err == nil || !strings.Contains(err.Error(), "make test") {
			t.Fatalf("got %v, want an error that names `make test`", err)
		}
	})
	t.Run("a directory that lacks the API server is named with what it lacks", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv(apitest.AssetsVar, dir)
		_, stop, err := apitest.Start()
		defer stop()
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "kube-apiserver")) {
			t.Fatalf("got %v, want an error that names the missing file", err)
		}
	})
	t.Run("an argument that is not --name=value is refused", func(t *testing.T) {
		if _, stop, err := apitest.Start("v=4"); err == nil {
			stop()
			t.Fatal("got no error")
		}
	})
	t.Run("down and up again it has kept what was stored", func(t *testing.T) {
		s, err := apitest.Run()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		clients, err := kubernetes.NewForConfig(s.Config)
		if err != nil {
			t.Fatal(err)
		}
		before, err := clients.CoreV1().ConfigMaps("default").Create(t.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Down()
		if _, err := clients.Discovery().ServerVersion(); err == nil {
			t.Error("it serves while it is down")
		}
		if err := s.Up(); err != nil {
			t.Fatal(err)
		}
		after, err := clients.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
		if err != nil || after.UID != before.UID || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("got %v, %v; want %v", after, err, before)
		}
	})
	t.Run("it serves until it is stopped and takes further arguments", func(t *testing.T) {
		cfg, stop, err := apitest.Start("--service-cluster-ip-range=10.9.0.0/24")
		if err != nil {
			t.Fatal(err)
		}
		clients, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			stop()
			t.Fatal(err)
		}
		var got string
		err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			svc, err := clients.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			if err == nil {
				got = svc.Spec.ClusterIP
			}
			return err == nil, nil
		})
		if err != nil || got != "10.9.0.1" {
			t.Errorf("service kubernetes: got cluster IP %q, %v; want 10.9.0.1", got, err)
		}
		stop()
		if _, err := clients.Discovery().ServerVersion(); err == nil {
			t.Error("it still serves after stop")
		}
	})
}
