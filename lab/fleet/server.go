package fleet

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/apitest"
)

const (
	namespace = "baton-system"
	account   = "baton-agent"
	agentUser = "system:serviceaccount:" + namespace + ":" + account
)

// auditPolicy logs what the agents ask for, and the answer's code; of others nothing.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["` + agentUser + `"]}
- {level: None}
`

// server is etcd and the API server, with what is known of their processes.
type server struct {
	*apitest.Server
	audit     string
	api, etcd int // process IDs
}

// policies are the files of deploy/base that refuse what an agent has no business to write.
func policies() []string {
	return []string{"policy-node.yaml", "policy-lease.yaml", "policy-marshal.yaml"}
}

// startServer starts both, with their files in dir, and applies what of deploy gives an agent its rights; the policies are left
// for later. The audit log is in dir, too, when no file is named for it.
func startServer(ctx context.Context, dir, audit, deploy string) (*server, error) {
	s := &server{audit: cmp.Or(audit, filepath.Join(dir, "audit.log"))}
	policy := filepath.Join(dir, "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	var err error
	if s.Server, err = apitest.Run("--audit-policy-file="+policy, "--audit-log-path="+s.audit, "--audit-log-maxsize=8000"); err != nil {
		return nil, err
	}
	s.Config.QPS = -1
	if s.api, err = child("kube-apiserver"); err == nil {
		s.etcd, err = child("etcd")
	}
	if err == nil {
		err = apply(ctx, s.Config, deploy, "namespace.yaml", "rbac.yaml")
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// apply creates the objects of some files as they are.
func apply(ctx context.Context, cfg *rest.Config, dir string, files ...string) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
			u := &unstructured.Unstructured{}
			if err := docs.Decode(&u.Object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("reading %q: %w", file, err)
			}
			kind, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
			if _, err := client.Resource(kind).Namespace(u.GetNamespace()).Create(ctx, u, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("creating %s %q: %w", u.GetKind(), u.GetName(), err)
			}
		}
	}
	return nil
}

// child is the process of that name that this one has started.
func child(name string) (int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("looking for %s: %w", name, err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if comm, fields, ok := parseStat(string(text)); ok && comm == name[:min(len(name), 15)] && fields[1] == strconv.Itoa(os.Getpid()) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("looking for %s: this process has not started it", name)
}

// parseStat splits /proc/PID/stat into the program's name and what follows it, from the state on, see proc(5).
func parseStat(text string) (comm string, fields []string, ok bool) {
	_, rest, ok := strings.Cut(text, "(")
	end := strings.LastIndexByte(rest, ')')
	if !ok || end < 0 {
		return "", nil, false
	}
	fields = strings.Fields(rest[end+1:])
	return rest[:end], fields, len(fields) > 20
}

// tick is the kernel's unit of processor time in /proc: 1/100 s wherever Go runs.
const tick = 10 * time.Millisecond

// cpu is the processor time that a process has used.
func cpu(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, fields, ok := parseStat(string(text))
	if !ok {
		return 0
	}
	user, _ := strconv.Atoi(fields[11]) // 0 if the kernel should write something else
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// memory is a process's resident memory now and at its highest, in bytes.
func memory(pid int) (rss, peak int64) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kib); n == 1 {
			rss = kib << 10
		}
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			peak = kib << 10
		}
	}
	return rss, peak
}

// metric is the sum of the API server's metric of that name, over its labels.
func (s *server) metric(ctx context.Context, client rest.Interface, name string) (float64, error) {
	text, err := client.Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	return sumOf(text, name), nil
}

func sumOf(text []byte, name string) (sum float64) {
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64); err == nil {
			sum += v
		}
	}
	return sum
}
