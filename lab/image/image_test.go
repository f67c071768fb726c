package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func archive(t *testing.T, i Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entries(t *testing.T, data []byte) (headers []tar.Header, contents map[string][]byte) {
	t.Helper()
	contents = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		headers, contents[h.Name] = append(headers, *h), body
	}
}

func TestImage(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(binary, []byte("static"), 0o700); err != nil {
		t.Fatal(err)
	}
	image := Image{
		Name: "example.org/agent:dev", Arch: "arm64", User: "0", Entrypoint: []string{"/agent"},
		Files: []File{
			{Path: "/etc/ssl/certs/ca.crt", Data: []byte("roots"), Mode: 0o644},
			{Path: "/agent", From: binary, Mode: 0o755},
		},
	}

	t.Run("the same files give the same bytes, whatever their order, times and modes on disk", func(t *testing.T) {
		first := archive(t, image)
		if err := os.Chtimes(binary, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(binary, 0o444); err != nil {
			t.Fatal(err)
		}
		again := image
		again.Files = []File{image.Files[1], image.Files[0]}
		if !bytes.Equal(first, archive(t, again)) {
			t.Error("the archives differ")
		}
	})

	t.Run("manifest, configuration and layer name each other by digest", func(t *testing.T) {
		_, files := entries(t, archive(t, image))
		var manifest []struct {
			Config           string
			RepoTags, Layers []string
		}
		if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
			t.Fatal(err)
		}
		m := manifest[0]
		var c config
		if err := json.Unmarshal(files[m.Config], &c); err != nil {
			t.Fatal(err)
		}
		if got := digest(files[m.Config]) + ".json"; got != m.Config {
			t.Errorf("configuration is named %s, want %s", m.Config, got)
		}
		if diff := cmp.Diff([]string{"sha256:" + digest(files[m.Layers[0]])}, c.RootFS.DiffIDs); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"example.org/agent:dev"}, m.RepoTags); diff != "" {
			t.Error(diff)
		}
		if c.Architecture != "arm64" || c.Config.User != "0" || c.Config.Entrypoint[0] != "/agent" {
			t.Errorf("configuration %+v", c)
		}
	})

	t.Run("the layer holds the files and their parents, owned by root, sorted", func(t *testing.T) {
		_, files := entries(t, archive(t, image))
		var layer []byte
		for name, data := range files {
			if filepath.Ext(name) == ".tar" {
				layer = data
			}
		}
		headers, contents := entries(t, layer)
		var got []string
		for _, h := range headers {
			got = append(got, h.Name)
			if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
				t.Errorf("%s: owner %d:%d, time %s", h.Name, h.Uid, h.Gid, h.ModTime)
			}
		}
		if diff := cmp.Diff([]string{"agent", "etc/", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca.crt"}, got); diff != "" {
			t.Error(diff)
		}
		if string(contents["agent"]) != "static" {
			t.Errorf("agent holds %q", contents["agent"])
		}
	})

	t.Run("every fault is named at once", func(t *testing.T) {
		err := Image{Name: "untagged", Files: []File{{Path: "relative"}}}.Write(io.Discard)
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range []string{"no tag", "no architecture", "not absolute"} {
			if !bytes.Contains([]byte(err.Error()), []byte(want)) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
	})
}
