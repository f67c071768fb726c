// Package image writes container images out of static binaries, without an engine: docker-archive files that containerd,
// podman and docker load.
//
// Guarantees: the same input gives the same bytes, wherever and whenever it is made. Times are zero, entries sorted, owners
// root; parent directories are part of the layer.
//
// Not guaranteed: that the files fit the architecture the image names.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// File of an image.
type File struct {
	Path string // absolute, in the image
	From string // file that it is read from, unless Data is set
	Data []byte
	Mode int64 // permission bits
}

// Image with one layer.
type Image struct {
	Name       string // reference with tag
	Arch       string // GOARCH
	Entrypoint []string
	User       string // "": root
	Env        []string
	Labels     map[string]string
	Files      []File
}

// config is the OCI image configuration, as far as it is used.
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// WriteFile writes the archive to a file, by rename.
func (i Image) WriteFile(name string) error {
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		return err
	}
	temp := name + ".new"
	if err := os.WriteFile(temp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

// Write writes the archive.
func (i Image) Write(w io.Writer) error {
	if err := i.check(); err != nil {
		return err
	}
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("making the layer of %q: %w", i.Name, err)
	}
	diff := digest(layer)
	epoch := time.Unix(0, 0).UTC()
	c := config{Created: epoch, Architecture: i.Arch, OS: "linux"}
	c.Config.User, c.Config.Env, c.Config.Entrypoint, c.Config.Labels = i.User, i.Env, i.Entrypoint, i.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{"sha256:" + diff}
	c.History = []history{{Created: epoch, CreatedBy: "static files"}}
	conf, err := json.Marshal(c)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": digest(conf) + ".json", "RepoTags": []string{i.Name}, "Layers": []string{diff + ".tar"},
	}})
	if err != nil {
		return err
	}
	return writeTar(w, []File{
		{Path: digest(conf) + ".json", Data: conf, Mode: 0o644},
		{Path: diff + ".tar", Data: layer, Mode: 0o644},
		{Path: "manifest.json", Data: manifest, Mode: 0o644},
	})
}

func (i Image) check() error {
	var faults []error
	if !strings.Contains(path.Base(i.Name), ":") {
		faults = append(faults, fmt.Errorf("image name %q: no tag", i.Name))
	}
	if i.Arch == "" {
		faults = append(faults, errors.New("image: no architecture"))
	}
	if len(i.Files) == 0 {
		faults = append(faults, errors.New("image: no files"))
	}
	for _, f := range i.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			faults = append(faults, fmt.Errorf("path in the image %q: not absolute and clean", f.Path))
		}
	}
	return errors.Join(faults...)
}

// layer is the tar of the files, with their parent directories, sorted.
func (i Image) layer() ([]byte, error) {
	entries := map[string]File{}
	for _, f := range i.Files {
		if _, twice := entries[f.Path[1:]]; twice {
			return nil, fmt.Errorf("file %q is there twice", f.Path)
		}
		if f.Data == nil && f.From != "" {
			data, err := os.ReadFile(f.From)
			if err != nil {
				return nil, err
			}
			f.Data = data
		}
		inside := f.Path[1:]
		f.Path = inside
		entries[inside] = f
		for dir := path.Dir(inside); dir != "."; dir = path.Dir(dir) {
			entries[dir+"/"] = File{Path: dir + "/", Mode: 0o755}
		}
	}
	var sorted []File
	for _, f := range entries {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var b bytes.Buffer
	err := writeTar(&b, sorted)
	return b.Bytes(), err
}

func writeTar(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.Path, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.Path, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
