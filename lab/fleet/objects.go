package fleet

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	workloads  = "work" // namespace of the pods that are evicted
	image      = "registry.example.com/app:v1"
	imageCount = 50 // kubelet reports that many: --node-status-max-images
	// statusEvery is kubelet's nodeStatusReportFrequency.
	statusEvery = 5 * time.Minute
	// graceMonitor is how long the controller manager waits for a silent kubelet: --node-monitor-grace-period.
	graceMonitor = 50 * time.Second
	// stopping is the time from a reboot that is accepted to the end of the pods: no host stops at once.
	stopping = 200 * time.Millisecond
)

func bootID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	s := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", s[:8], s[8:12], s[12:16], s[16:20], s[20:])
}

// poolLabel says to which pool of the cloud a node belongs.
const poolLabel = "node.kubernetes.io/pool"

// poolOf gives three nodes to the control plane and a fifth to the edge.
func poolOf(i int) string {
	switch {
	case i < 3:
		return "control"
	case i%5 == 4:
		return "edge"
	}
	return "general"
}

// newNode is a Node as kubelet and cloud make it: its size matters to who watches it.
func newNode(i int, name, boot string) *corev1.Node {
	r := mathrand.New(mathrand.NewPCG(7, uint64(i))) //nolint:gosec // names of images
	zone := fmt.Sprintf("eu-central-1%c", 'a'+i%3)
	pool := poolOf(i)
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("16"), corev1.ResourceMemory: resource.MustParse("64862388Ki"),
		corev1.ResourceEphemeralStorage: resource.MustParse("104845292Ki"), corev1.ResourcePods: resource.MustParse("110"),
		"hugepages-1Gi": resource.MustParse("0"), "hugepages-2Mi": resource.MustParse("0"),
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
				corev1.LabelInstanceTypeStable: "m6i.4xlarge", corev1.LabelTopologyZone: zone, corev1.LabelTopologyRegion: "eu-central-1",
				"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", poolLabel: pool,
				"topology.ebs.csi.aws.com/zone": zone, "kubernetes.io/os-release": "debian",
			},
			Annotations: map[string]string{
				"node.alpha.kubernetes.io/ttl":                           "0",
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
				"csi.volume.kubernetes.io/nodeid":                        fmt.Sprintf(`{"ebs.csi.aws.com":"i-%017x"}`, r.Uint64()),
				"alpha.kubernetes.io/provided-node-ip":                   address(i),
			},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: fmt.Sprintf("10.%d.%d.0/24", 64+i/256, i%256), PodCIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", 64+i/256, i%256)},
			ProviderID: fmt.Sprintf("aws:///%s/i-%017x", zone, r.Uint64()),
		},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity.DeepCopy(),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: address(i)},
				{Type: corev1.NodeHostName, Address: name},
				{Type: corev1.NodeInternalDNS, Address: name + ".eu-central-1.compute.internal"},
			},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()), SystemUUID: bootID(), BootID: boot,
				KernelVersion: "6.1.0-31-cloud-amd64", OSImage: "Debian GNU/Linux 12 (bookworm)", ContainerRuntimeVersion: "containerd://2.4.2",
				KubeletVersion: "v1.37.2", OperatingSystem: "linux", Architecture: "amd64",
			},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
				ready(true),
			},
		},
	}
	for range imageCount {
		repository := fmt.Sprintf("registry.eu-central-1.example.com/platform/team-%02d/service-%04d", r.IntN(40), r.IntN(5000))
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{
				fmt.Sprintf("%s@sha256:%016x%016x%016x%016x", repository, r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()),
				fmt.Sprintf("%s:v%d.%d.%d", repository, r.IntN(9), r.IntN(30), r.IntN(100)),
			},
			SizeBytes: r.Int64N(2e9),
		})
	}
	return n
}

func address(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250) }

func condition(kind corev1.NodeConditionType, is corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
	now := metav1.Now()
	return corev1.NodeCondition{Type: kind, Status: is, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
}

func ready(is bool) corev1.NodeCondition {
	if is {
		return condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	}
	return condition(corev1.NodeReady, corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.")
}

// newPod is a pod of a controller, bound to a node.
func newPod(ns, name, node, kind string) *corev1.Pod {
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: ns, Labels: map[string]string{"app": kind},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "app", UID: types.UID(bootID()), Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "c", Image: image}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
	if ns == namespace {
		p.Spec.ServiceAccountName = account
	}
	return p
}

// running is the status of a pod whose container has just been started.
func running() corev1.PodStatus {
	now, started := metav1.Now(), true
	return corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", Image: image, ImageID: image + "@sha256:1", Ready: true, Started: &started, ContainerID: "containerd://" + bootID(),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
}

// stopped is the status of a pod whose container has just stopped, which the kubelet writes before it deletes the pod.
func stopped() corev1.PodStatus {
	now := metav1.Now()
	return corev1.PodStatus{
		Phase:      corev1.PodSucceeded,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "PodCompleted", LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", Image: image, ImageID: image + "@sha256:1",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}},
		}},
	}
}

// newLease is a kubelet's, of which it renews a quarter of its duration after the last time.
func newLease(node string, every time.Duration) *coordinationv1.Lease {
	seconds, now := int32(4*every.Seconds()), metav1.NowMicro()
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: node, Namespace: corev1.NamespaceNodeLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
}
