package kube

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNodeLabel(t *testing.T) {
	for _, name := range []string{"", "a", strings.Repeat("a.", 126) + "z"} {
		if errs := validation.IsValidLabelValue(NodeLabel(name)); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if NodeLabel("a") == NodeLabel("b") {
		t.Error("two names, one label")
	}
}
