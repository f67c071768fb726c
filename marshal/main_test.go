package marshal_test

import (
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/apitest"
)

// api is the API server of these tests. It is set once by TestMain.
var api *rest.Config

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	cfg, stop, err := apitest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	cfg.QPS = -1
	api = cfg
	return m.Run()
}
