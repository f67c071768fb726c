package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// dryRuns bounds how many evictions a preflight tries on: one for each controller, the first ones by name.
const dryRuns = 20

// preflightTime bounds a preflight: what a webhook has not answered by then is no warning.
const preflightTime = 3 * time.Second

// Warning is what a drain would run into if it began now. It orders and warns, and vetoes nothing: operators of storage and
// databases open their budgets only when the node is cordoned, or at the first eviction.
type Warning struct{ Reason, Message string }

// Preflight is [Drainer.Plan] with warnings: from the disruption budgets, summed over the pods of this node, and from
// evictions that the API server tries on without carrying them out. It also says whether others of a kind serve meanwhile, whatever the
// mode of the drain, where that may be read.
func (d *Drainer) Preflight(ctx context.Context, s DrainSettings) (DrainPlan, []Warning, error) {
	pods, err := d.list(ctx)
	if err != nil {
		return DrainPlan{}, nil, err
	}
	f, held := d.facts(ctx, pods, s)
	if f.Elsewhere == nil {
		f.Elsewhere = d.elsewhere(ctx, pods)
	}
	plan := Plan(pods, s.Policy, f).heldBy(held)
	warnings, err := d.preflight(ctx, pods, plan.Pods)
	if err != nil {
		warnings = []Warning{{ReasonBudget, "whether disruption budgets allow it is not known: " + err.Error()}}
	}
	return plan, warnings, nil
}

func (d *Drainer) preflight(ctx context.Context, pods []*corev1.Pod, plans []PodPlan) ([]Warning, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightTime)
	defer cancel()
	if !slices.ContainsFunc(plans, func(p PodPlan) bool { return p.Decision == DecisionEvict }) {
		return nil, nil
	}
	budgets, err := d.budgets(ctx, pods)
	if err != nil {
		return nil, err
	}
	warnings, warned := budgetWarnings(pods, plans, budgets)
	tried := map[string]bool{}
	refused := make(chan Warning, dryRuns)
	var g errgroup.Group
	for _, p := range plans {
		alike := p.Namespace + "/" + cmp.Or(p.Owner, p.UID)
		if p.Decision != DecisionEvict || warned[p.UID] || tried[alike] || len(tried) >= dryRuns {
			continue
		}
		tried[alike] = true
		g.Go(func() error {
			err := d.tryOn(ctx, p)
			switch a := classify(err); {
			case a.result == resultBudget:
				refused <- Warning{ReasonBudget, fmt.Sprintf("%s/%s: disruption budget %s %s", p.Namespace, p.Name, a.budget, a.message)}
			case a.result == resultRefused && !untried(err):
				refused <- Warning{ReasonEviction, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, a.message)}
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	close(refused)
	for w := range refused {
		warnings = append(warnings, w)
	}
	slices.SortFunc(warnings, func(a, b Warning) int { return cmp.Compare(a.Message, b.Message) })
	return warnings, nil
}

// budgetAge is how long a drain goes by the budgets that a preflight has read. They only say how many evictions it begins with.
const budgetAge = 30 * time.Second

// budgets are those that were read last.
type budgets struct {
	mu   sync.Mutex
	at   time.Time
	of   map[string]bool // namespaces
	seen []policyv1.PodDisruptionBudget
}

func (b *budgets) keep(seen []policyv1.PodDisruptionBudget, of map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.of, b.seen = time.Now(), of, seen
}

// last returns them, and whether they are of all these namespaces and young enough.
func (b *budgets) last(of map[string]bool) (seen []policyv1.PodDisruptionBudget, good bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ns := range of {
		if !b.of[ns] {
			return nil, false
		}
	}
	return b.seen, !b.at.IsZero() && time.Since(b.at) < budgetAge
}

// lately are the budgets as they were just before a drain, which a preflight has read, or else as they are.
func (d *Drainer) lately(ctx context.Context, pods []*corev1.Pod) ([]policyv1.PodDisruptionBudget, error) {
	if seen, good := d.budgeted.last(spacesOf(pods)); good {
		return seen, nil
	}
	ctx, cancel := context.WithTimeout(ctx, preflightTime)
	defer cancel()
	return d.budgets(ctx, pods)
}

// spacesOf are the namespaces of those pods that a reboot would take away.
func spacesOf(pods []*corev1.Pod) map[string]bool {
	spaces := map[string]bool{}
	for _, p := range pods {
		if nodeBound(p) == "" {
			spaces[p.Namespace] = true
		}
	}
	return spaces
}

// budgets are the disruption budgets of the namespaces of pods that a reboot would take away, from the API server's cache: advice
// need not be newer than that.
func (d *Drainer) budgets(ctx context.Context, pods []*corev1.Pod) ([]policyv1.PodDisruptionBudget, error) {
	spaces := spacesOf(pods)
	var mu sync.Mutex
	var all []policyv1.PodDisruptionBudget
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for ns := range spaces {
		g.Go(func() error {
			l, err := d.cluster.PolicyV1().PodDisruptionBudgets(ns).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
			if err != nil {
				return fmt.Errorf("listing the disruption budgets of namespace %q: %w", ns, err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, l.Items...)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	d.budgeted.keep(all, spaces)
	return all, nil
}

// shortOf says of pods, by their UID, why their budgets do not let all of these pods be away at once.
func shortOf(pods []*corev1.Pod, budgets []policyv1.PodDisruptionBudget) map[string]string {
	out := map[string]string{}
	for i := range budgets {
		var under []*corev1.Pod
		for _, p := range pods {
			if covers(&budgets[i], p) && isReady(p) {
				under = append(under, p)
			}
		}
		if why := short(&budgets[i], len(under)); why != "" {
			for _, p := range under {
				out[string(p.UID)] = fmt.Sprintf("disruption budget %s %s", budgets[i].Name, why)
			}
		}
	}
	return out
}

// tryOn asks whether an eviction would be admitted now. The query repeats what the body says for those who read audit logs.
func (d *Drainer) tryOn(ctx context.Context, p PodPlan) error {
	uid := types.UID(p.UID)
	e := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, DryRun: []string{metav1.DryRunAll}},
	}
	return d.post(e).Param("dryRun", metav1.DryRunAll).Do(ctx).Error()
}

// untried tells an answer to a trial that says nothing of the eviction: a webhook that cannot be asked without being meant.
func untried(err error) bool {
	return apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "does not support dry run")
}

// budgetWarnings looks at the budgets of the pods that are to be evicted; warned has the UIDs of those it warns about.
func budgetWarnings(pods []*corev1.Pod, plans []PodPlan, budgets []policyv1.PodDisruptionBudget) (warnings []Warning, warned map[string]bool) {
	evict := map[string]bool{}
	for _, p := range plans {
		evict[p.UID] = p.Decision == DecisionEvict
	}
	warned = map[string]bool{}
	under := map[int][]*corev1.Pod{} // by the budget's index
	for _, p := range pods {
		if !evict[string(p.UID)] || p.Status.Phase == corev1.PodPending {
			continue // the API server asks no budget about a pod that has not started
		}
		var names []string
		covering := -1
		for i := range budgets {
			if covers(&budgets[i], p) {
				names, covering = append(names, budgets[i].Name), i
			}
		}
		switch len(names) {
		case 0:
		case 1:
			if isReady(p) || !sickMayGo(&budgets[covering]) {
				under[covering] = append(under[covering], p)
			}
		default:
			slices.Sort(names)
			warned[string(p.UID)] = true
			warnings = append(warnings, Warning{ReasonBudget, fmt.Sprintf(
				"%s/%s: more than one disruption budget covers it, which the API server does not support: %s", p.Namespace, p.Name, list(names))})
		}
	}
	for i, pods := range under {
		why := short(&budgets[i], len(pods))
		if why == "" {
			continue
		}
		var names []string
		for _, p := range pods {
			names = append(names, p.Namespace+"/"+p.Name)
			warned[string(p.UID)] = true
		}
		slices.Sort(names)
		warnings = append(warnings, Warning{ReasonBudget, fmt.Sprintf("%s: disruption budget %s %s", list(names), budgets[i].Name, why)})
	}
	return warnings, warned
}

// sickMayGo tells whether the budget lets pods go that are not ready, whatever it allows.
func sickMayGo(b *policyv1.PodDisruptionBudget) bool {
	policy := b.Spec.UnhealthyPodEvictionPolicy
	return policy != nil && *policy == policyv1.AlwaysAllow
}

func covers(b *policyv1.PodDisruptionBudget, p *corev1.Pod) bool {
	if b.Namespace != p.Namespace {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	return err == nil && selector.Matches(labels.Set(p.Labels))
}

// short says why a budget does not let so many pods go now; "" when it does.
func short(b *policyv1.PodDisruptionBudget, pods int) string {
	st := b.Status
	switch {
	case st.ObservedGeneration < b.Generation:
		return "is newer than its status: its controller has not looked at it yet"
	case int(st.DisruptionsAllowed) < pods:
		return fmt.Sprintf("allows %d of %d now: %d of %d pods are healthy, it needs %d", st.DisruptionsAllowed, pods, st.CurrentHealthy, st.ExpectedPods, st.DesiredHealthy)
	}
	return ""
}
