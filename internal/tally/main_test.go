package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name, in, last, shows string
		clean                 bool
	}{
		{
			"all passed", `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":0.5}
`, "1 passed, 0 failed, 0 skipped", "ok   p 0.5s", true,
		},
		{
			"a skipped test is named", `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    no root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}
`, "1 passed, 0 failed, 1 skipped", "SKIPPED p/TestB\n    no root", false,
		},
		{
			"a failed test shows its output and its package counts once", `{"Action":"output","Package":"p","Test":"TestB","Output":"    got 1\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}
`, "0 passed, 1 failed, 0 skipped", "FAILED p/TestB\n    got 1", false,
		},
		{
			"what a test says of itself is shown in the end", `{"Action":"attr","Package":"p","Test":"TestA","Key":"crashes","Value":"12"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
`, "1 passed, 0 failed, 0 skipped", "ok   p 0.0s\ncrashes of TestA: 12\n", true,
		},
		{
			"a package that does not build counts as failed", `{"Action":"pass","Package":"q","Test":"TestA"}
{"ImportPath":"p","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}
{"Action":"fail","Package":"p"}
`, "1 passed, 1 failed, 0 skipped", "undefined: x", false,
		},
		{
			"a test binary that was killed counts as failed", `{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    waiting\n"}
`, "1 passed, 1 failed, 0 skipped", "NEVER ENDED p/TestB\n    waiting", false,
		},
		{"a package without tests is not a skipped test, but nothing ran", `{"Action":"skip","Package":"p"}
`, "0 passed, 0 failed, 0 skipped", "", false},
		{"what is not JSON is passed on", "go: no such module\n", "0 passed, 0 failed, 0 skipped", "go: no such module", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(tt.in), &out)
			if (err == nil) != tt.clean {
				t.Errorf("got error %v, want clean %v", err, tt.clean)
			}
			if !strings.HasSuffix(out.String(), tt.last+"\n") || !strings.Contains(out.String(), tt.shows) {
				t.Errorf("got\n%s\nwant %q in it and %q as its last line", out.String(), tt.shows, tt.last)
			}
			if strings.Contains(out.String(), "noise") {
				t.Error("it shows the output of a test that passed")
			}
		})
	}
}
