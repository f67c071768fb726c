package host

import (
	"io/fs"
	"os"
	"testing"
)

// Whose a file is cannot be set by every tester: this is asked of the rule itself.
func TestOnlyWhatIsRootsIsTrusted(t *testing.T) {
	root := os.Geteuid()
	for _, tt := range []struct {
		mode fs.FileMode
		uid  int
		dir  bool
		want string
	}{
		{0o755, root, false, ""},
		{0o500, root, false, ""},
		{0o755, root + 1, false, "belongs to user"},
		{0o755, -1, false, "belongs to user -1"},
		{fs.ModeDir | 0o755, root + 1, true, "belongs to user"},
		{fs.ModeDir | 0o755, root, true, ""},
		{fs.ModeDir | fs.ModeSticky | 0o777, root, true, "can be written by others than root"},
		{fs.ModeNamedPipe | 0o755, root, false, "is no regular file"},
		{0o644, root, false, "cannot be executed"},
		{0o655, root, false, "cannot be executed"},
	} {
		why, fix := untrusted(tt.mode, tt.uid, tt.dir)
		if why != tt.want && (tt.want != "belongs to user" || len(why) <= len(tt.want) || why[:len(tt.want)] != tt.want) || (why == "") != (fix == "") {
			t.Errorf("%s of %d, directory %v: %q, %q, want %q", tt.mode, tt.uid, tt.dir, why, fix, tt.want)
		}
	}
}
