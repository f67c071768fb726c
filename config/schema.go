package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kubebaton.io/baton/window"
)

// Field is the documentation of one field of the file.
type Field struct {
	Path    string // as in groups[].maxFailed
	Type    string // for people: duration, integer, ...
	Default string // as it would be written; "" none, see Required
	Bounds  string // for people; "" none
	About   string // what it does
	// Required fields have no default and must be given wherever their parent is.
	Required bool

	kind      kind
	low, high int64 // bounds: nanoseconds, numbers, elements or bytes, by kind
	values    []string
	whole     func(map[string]any) (name, fix string) // of an object: what one of its fields must be beside the others; nil: nothing
}

type kind int

const (
	object kind = iota
	list
	duration
	integer
	text
	choice
	amount
	boolean
	stringMap
)

// Document describes every field, in the file's order.
func Document() []Field {
	fields := schema()
	defaults := defaultTree()
	for i := range fields {
		f := &fields[i]
		f.Type = f.kind.describe()
		if f.Bounds == "" {
			f.Bounds = f.bounds()
		}
		if f.Default == "" && !f.Required && f.kind != object {
			f.Default = lookUp(defaults, f.Path)
		}
	}
	return fields
}

// schema is what the file may hold. Defaults stand here only where Default cannot show
// them: inside lists.
func schema() []Field {
	fields := []Field{
		{Path: "", kind: object},
		{Path: "apiVersion", kind: choice, values: []string{APIVersion}, Required: true, About: "The file's version."},
		{Path: "kind", kind: choice, values: []string{Kind}, Required: true, About: "What the file is."},
		{Path: "sentinels", kind: object, About: "What says that a host wants a reboot."},
		{Path: "sentinels.files", kind: list, low: 1, high: 32, About: "A file that exists asks for a reboot. Absolute paths on the host; the agent's DaemonSet must mount their directories."},
		{Path: "sentinels.files[]", kind: text, low: 1, high: 4096},
		span("sentinels.recheckInterval", 10*time.Second, 24*time.Hour, "How often the files are looked at even if inotify reported nothing."),
		span("gateInterval", 10*time.Second, time.Hour, "How often a waiting node asks again whether it may go (jittered). Every gate is asked once more right before the reboot."),
		{Path: "pendingTaint", kind: boolean, About: "Whether a node that waits is tainted kubebaton.io/reboot-pending:PreferNoSchedule, so that pods that are moved go, where they can, to nodes that need not be rebooted any more."},
		{Path: "windows", kind: list, high: 100, Default: "none: always open", About: "When nodes may be taken down. Open when any of them is."},
		{Path: "windows[]", kind: object},
		{Path: "windows[].cron", kind: text, low: 1, high: 256, Required: true, About: "The window's starts: minute, hour, day of month, month, day of week (Sunday is 0), or @hourly, @daily, @weekly, @monthly, @yearly. Quote it."},
		required(span("windows[].duration", window.MinDuration, window.MaxDuration, "How long it is open from each start, in elapsed time.")),
		{Path: "windows[].timeZone", kind: text, low: 1, high: 64, Default: defaultTimeZone, About: "IANA time zone of cron, such as Europe/Berlin."},
		{Path: "blackouts", kind: list, high: 100, Default: "none", About: "Dates on which no node is taken down, whatever the windows say."},
		{Path: "blackouts[]", kind: object},
		{Path: "blackouts[].from", kind: text, low: 1, high: 64, Bounds: "a date", Required: true, About: "First date, such as 2026-12-20."},
		{Path: "blackouts[].to", kind: text, low: 1, high: 64, Bounds: "a date", Required: true, About: "Last date, included."},
		{Path: "blackouts[].timeZone", kind: text, low: 1, high: 64, Default: defaultTimeZone, About: "IANA time zone of the dates."},
		{Path: "blackouts[].reason", kind: text, high: 256, Default: "none", About: "Shown to people where a node waits for it."},
		{Path: "maxUnavailable", kind: amount, About: "How many nodes of a group may be unavailable at once, for whatever reason: a number, or per cent of the group's nodes, rounded down, at least 1. The default of groups."},
		{Path: "maxFailed", kind: integer, high: maxAmount, About: "How many nodes of a group may have failed before the group halts. The default of groups."},
		span("rebootTimeout", time.Minute, 24*time.Hour, "How long a node may stay away after its reboot was asked for before it counts as failed. The default of groups."),
	}
	fields = append(fields, groupFields()...)
	fields = append(fields, Field{Path: "drain", kind: object, About: "How a node is emptied. The default of groups, field by field. docs/drain.md says how it is decided about a pod."})
	fields = append(fields, drainFields("drain")...)
	return append(fields,
		Field{Path: "hooks", kind: object, About: "Programs of the host that run at stages of a reboot. docs/hooks.md says how they are written."},
		span("hooks.timeout", time.Second, 24*time.Hour, "How long each hook may take. Then it is stopped, and has failed. Beside it, drain.timeout bounds the pre-drain hooks together with the drain, and verify.timeout the post-reboot ones."),
		Field{Path: "verify", kind: object, About: "When a rebooted node counts as back."},
		span("verify.timeout", time.Second, 24*time.Hour, "How long a rebooted node may take until all is well again, soak included. Then it counts as failed: it keeps its slot and its cordon, and the group may halt."),
		span("verify.soak", 0, 24*time.Hour, "How long all must stay well before the node is uncordoned. Shorter than verify.timeout."),
		Field{Path: "backoff", kind: object, About: "How long a node waits after an attempt that did not end in a reboot. Doubles from initial to max."},
		span("backoff.initial", time.Second, 24*time.Hour, "The first wait."),
		span("backoff.max", time.Second, 24*time.Hour, "The longest wait. Not less than backoff.initial."),
		span("deletedGrace", time.Second, time.Hour, "How long the Node of a slot's holder must be seen to be gone before its slot is freed."),
		span("nominationTimeout", 5*time.Second, 10*time.Minute, "How long a node may take to use a slot it was nominated for before another may have it."),
		Field{Path: "maxReboots24h", kind: integer, low: 1, high: 100, About: "How many times a node may be rebooted in 24 hours; what is more waits. Stops reboot loops."},
	)
}

func groupFields() []Field {
	hidden := slices.Concat(selectorFields("groups[].nodeSelectors[]"), drainFields("groups[].drain"))
	for i := range hidden {
		hidden[i].About = "" // the same as those of nodeSelector, and of drain
	}
	selectors, drain := hidden[:len(selectorFields(""))], hidden[len(selectorFields("")):]
	return slices.Concat([]Field{
		{Path: "groups", kind: list, high: 50, Default: "`control-plane` and `workers`, see below", About: "Nodes that share slots and settings. The first that selects a node has it; a node in none is never taken down."},
		{Path: "groups[]", kind: object},
		{Path: "groups[].name", kind: text, low: 1, high: maxGroupName, Required: true, About: "A DNS label, unique; part of the names of the group's Leases."},
		{Path: "groups[].nodeSelector", kind: object, Default: "every node", About: "A label selector, as in a Deployment."},
	}, selectorFields("groups[].nodeSelector"), []Field{
		{Path: "groups[].nodeSelectors", kind: list, high: 20, Default: "none", About: "Several selectors instead of nodeSelector: a node is in the group when any of them matches it."},
		{Path: "groups[].nodeSelectors[]", kind: object},
	}, selectors, []Field{
		{Path: "groups[].maxUnavailable", kind: amount, Default: "the top level's", About: "See maxUnavailable."},
		{Path: "groups[].maxFailed", kind: integer, high: maxAmount, Default: "the top level's", About: "See maxFailed."},
		withDefault(span("groups[].rebootTimeout", time.Minute, 24*time.Hour, "See rebootTimeout."), "the top level's"),
		withDefault(span("groups[].soak", 0, 24*time.Hour, "See verify.soak."), "verify.soak"),
		{Path: "groups[].after", kind: list, high: 49, Default: "none", About: "Groups whose nodes go first: no node of this one goes while one of theirs can go or is on its way, or while they are halted."},
		{Path: "groups[].after[]", kind: text, low: 1, high: maxGroupName},
		{Path: "groups[].topologyKey", kind: text, low: 1, high: 317, Default: "none", About: "A node label, such as topology.kubernetes.io/zone: the nodes of one value go, then those of the next in alphabetical order."},
		{Path: "groups[].canary", kind: object, Default: "none: all go as there are slots", About: "Few nodes go first; the others when these are back and have been healthy for a while. `canary: {}` is one node and half an hour."},
		withDefault(Field{Path: "groups[].canary.nodes", kind: integer, low: 1, high: maxAmount, About: "How many go first."}, strconv.Itoa(defaultCanaryNodes)),
		withDefault(span("groups[].canary.soak", time.Minute, 7*24*time.Hour, "How long after the last of them is back the others wait. It speaks for every node that wanted its reboot when the first of them went down; a newer wish is tried anew."), defaultCanarySoak.String()),
		{Path: "groups[].drain", kind: object, Default: "the top level's", About: "See drain: what is not said here is as it is there. Rules that stand here take the place of those there."},
	}, drain)
}

// drainFields are those of a drain at a path.
func drainFields(path string) []Field {
	return slices.Concat([]Field{
		{Path: path + ".mode", kind: choice, values: []string{Always, Auto, Never}, About: "always: pods are moved before the reboot. auto: they stay, when this node was seen to be back long before the cluster would move its pods, and others of the same kind serve meanwhile. never: they stay; only those are evicted that would not come back with the node."},
		span(path+".timeout", time.Second, 24*time.Hour, "How long a drain may take. Then the node is uncordoned, its slot freed, and it tries again after backoff."),
		span(path+".gracePeriod", 0, 24*time.Hour, "The longest time that an evicted pod is given to end, rounded up to seconds. 0: its own terminationGracePeriodSeconds, however long. Else at least 1s: no pod is ended by force."),
		span(path+".volumeTimeout", 0, time.Hour, "How long the drain waits, after the pods have ended, until their network volumes are off the node. Then it goes on. 0: not at all."),
	}, policyFields(path), []Field{
		{Path: path + ".rules", kind: list, high: 50, Default: "none", About: "What becomes of pods by namespace and labels. The first that matches a pod is the one that counts: it has either do, or other values of minPodAge to annotatedPods. A pod's own annotation kubebaton.io/eviction comes before it."},
		{Path: path + ".rules[]", kind: object, whole: doOrPolicy},
		{Path: path + ".rules[].namespaces", kind: list, high: 100, Default: "every namespace", About: "The pod is in any of them."},
		{Path: path + ".rules[].namespaces[]", kind: text, low: 1, high: 63},
		{Path: path + ".rules[].podSelector", kind: object, Default: "every pod", About: "A label selector, as in a Deployment."},
	}, selectorFields(path+".rules[].podSelector"), []Field{
		{Path: path + ".rules[].do", kind: choice, values: append(actions(), Delete), Default: "none", About: "What becomes of it, before all of the above. evict: it is evicted, by the Eviction API; a pod without a controller is left to all of the above, of which unmanagedPods is one. delete: it is evicted whether or not it has a controller. The others as above."},
	}, ofRule(policyFields(path+".rules[]")), []Field{
		{Path: path + ".loadBalancers", kind: object, About: "How the load balancers of a cloud are kept from sending to a node that is emptied."},
		{Path: path + ".loadBalancers.exclude", kind: boolean, About: "Whether the node has the label node.kubernetes.io/exclude-from-external-load-balancers from its cordon until it is back. A label that was there before stays."},
		span(path+".loadBalancers.wait", 0, time.Hour, "How long after the label the first pod is evicted: the time that the load balancer needs. Shorter than timeout."),
	})
}

// policyFields are those that say what becomes of pods, of a drain or of one of its rules.
func policyFields(path string) []Field {
	return []Field{
		span(path+".minPodAge", 0, 24*time.Hour, "A pod that has not run for so long yet is awaited until it has, and then evicted. Shorter than timeout."),
		{Path: path + ".unmanagedPods", kind: choice, values: []string{Block, Wait, RideThrough, Delete}, About: "Pods without a controller, which an eviction ends for ever. block: the node does not ask for a slot while it has one; wait: the drain waits for it to end; ride-through: it stays and its containers start again after the reboot; delete: it is evicted like any other."},
		{Path: path + ".localVolumes", kind: choice, values: actions(), About: "Pods with a controller that a volume binds to this node: local storage. evict: such a pod ends in good order and is Pending until the node is back; the others as above."},
		{Path: path + ".emptyDir", kind: choice, values: actions(), About: "Pods that keep data in an emptyDir on disk, which ends with the pod."},
		{Path: path + ".jobs", kind: choice, values: []string{Evict, Wait, Block}, About: "Pods of Jobs. wait: until they have ended, or jobTimeout. They cannot ride through: by their restartPolicy they are not started again after a reboot."},
		span(path+".jobTimeout", 0, 24*time.Hour, "How long pods of Jobs are awaited under jobs: wait, from the drain's beginning; then they are evicted, unless emptyDir keeps them. Shorter than timeout. 0: as long as the drain lasts."),
		{Path: path + ".annotatedPods", kind: choice, values: actions(), About: "Pods that tell other tools not to disturb them, by cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\" or karpenter.sh/do-not-disrupt: \"true\"."},
	}
}

// ofRule makes of a drain's fields those of a rule.
func ofRule(fields []Field) []Field {
	for i, f := range fields {
		fields[i].Default, fields[i].About = "the drain's", "See drain"+f.Path[strings.LastIndexByte(f.Path, '.'):]+"."
	}
	return fields
}

// doOrPolicy wants of a rule either do, or any of the fields of a policy.
func doOrPolicy(rule map[string]any) (name, fix string) {
	var others, given []string
	for _, f := range policyFields("") {
		name := strings.TrimPrefix(f.Path, ".")
		others = append(others, name)
		if rule[name] != nil {
			given = append(given, name)
		}
	}
	switch {
	case rule["do"] == nil && len(given) == 0:
		return "do", "must be set to " + strings.Join(append(actions(), Delete), ", ") + "; or, in its place, any of " + strings.Join(others, ", ")
	case rule["do"] != nil && len(given) > 0:
		return "do", "must not be given beside " + strings.Join(given, ", ") + ": it decides alone, leave it out or them"
	}
	return "", ""
}

// actions are what may become of a pod that somebody re-creates.
func actions() []string { return []string{Evict, Wait, RideThrough, Block} }

// selectorFields are those of a label selector at a path.
func selectorFields(path string) []Field {
	return []Field{
		{Path: path + ".matchLabels", kind: stringMap, Default: "none", About: "Labels it must have."},
		{Path: path + ".matchExpressions", kind: list, high: 20, Default: "none", About: "Conditions its labels must meet, all of them."},
		{Path: path + ".matchExpressions[]", kind: object},
		{Path: path + ".matchExpressions[].key", kind: text, low: 1, high: 317, Required: true, About: "The label."},
		{Path: path + ".matchExpressions[].operator", kind: choice, values: []string{"In", "NotIn", "Exists", "DoesNotExist"}, Required: true, About: "What is asked of it."},
		{Path: path + ".matchExpressions[].values", kind: list, high: 1000, Default: "none", About: "For In and NotIn: its values."},
		{Path: path + ".matchExpressions[].values[]", kind: text, high: 63},
	}
}

// span is a duration field with its bounds, both included.
func span(path string, low, high time.Duration, about string) Field {
	return Field{Path: path, kind: duration, low: int64(low), high: int64(high), About: about}
}

func required(f Field) Field {
	f.Required = true
	return f
}

func withDefault(f Field, value string) Field {
	f.Default = value
	return f
}

func (k kind) describe() string {
	switch k {
	case object:
		return "object"
	case list:
		return "list"
	case duration:
		return "duration"
	case integer:
		return "integer"
	case text, choice:
		return "string"
	case amount:
		return "integer or per cent"
	case boolean:
		return "boolean"
	case stringMap:
		return "map of strings"
	}
	return ""
}

// bounds says in words what the values of a field are held to.
func (f *Field) bounds() string {
	switch f.kind {
	case duration:
		return fmt.Sprintf("%v to %v", Duration(f.low), Duration(f.high))
	case integer:
		return fmt.Sprintf("%d to %d", f.low, f.high)
	case amount:
		return fmt.Sprintf("1 to %d, or 1%% to 100%%", maxAmount)
	case choice:
		return strings.Join(f.values, ", ")
	case list:
		if f.low > 0 {
			return fmt.Sprintf("%d to %d elements", f.low, f.high)
		}
		return fmt.Sprintf("at most %d elements", f.high)
	case text:
		return fmt.Sprintf("at most %d characters", f.high)
	case boolean:
		return "true or false"
	case object, stringMap:
	}
	return ""
}

// defaultTree is Default as it would be written.
func defaultTree() map[string]any {
	var tree map[string]any
	data, err := json.Marshal(Default())
	if err == nil {
		err = json.Unmarshal(data, &tree)
	}
	if err != nil {
		return nil // a test sees the defaults missing
	}
	return tree
}

// lookUp is the scalar or the list of scalars at a path without lists.
func lookUp(tree map[string]any, path string) string {
	var value any = tree
	for name := range strings.SplitSeq(path, ".") {
		inner, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		value = inner[name]
	}
	switch v := value.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = fmt.Sprint(v[i])
		}
		return strings.Join(parts, ", ")
	default:
		return fmt.Sprint(v)
	}
}
