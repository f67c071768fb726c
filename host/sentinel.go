package host

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	maxContent  = 4 << 10   // bytes read of a sentinel: its first line is the reason
	maxPackages = 256 << 10 // bytes read of a package list
	maxReason   = 200       // runes: a reason goes into Events and an annotation
	shownPkgs   = 4         // packages a reason names
)

// Sentinel is what asks for a reboot of this host.
type Sentinel struct {
	// Source names what asks, for a file its path on the host; several are joined by commas; "" is: nobody asks.
	Source string
	// Reason is one line for people, at most 200 characters.
	Reason string
	// Fingerprint is the same for the same demand: sources, packages, and the kernel that would be booted, if the mounted
	// directories show it. No time is in it, so a sentinel that is made again after the reboot keeps its fingerprint.
	Fingerprint string
	// Since is when the oldest source last changed.
	Since time.Time
}

type demand struct {
	source   string
	text     string // the source's own words, one line, may be ""
	packages []string
	since    time.Time
}

// Sentinel reads all sources now.
func (h *Host) Sentinel(ctx context.Context) (Sentinel, error) {
	if err := ctx.Err(); err != nil {
		return Sentinel{}, fmt.Errorf("reading sentinels: %w", err)
	}
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return Sentinel{}, fmt.Errorf("reading sentinels: %w", err)
	}
	defer root.Close()

	var demands []demand
	var faults []error
	for _, s := range h.sources {
		switch d, err := s.read(root); {
		case err != nil:
			faults = append(faults, err)
		case d != nil:
			demands = append(demands, *d)
		}
	}
	// One source that cannot be read spoils the whole: the fingerprint covers them all.
	if len(faults) > 0 {
		return Sentinel{}, fmt.Errorf("reading sentinels: %w", errors.Join(faults...))
	}
	if len(demands) == 0 {
		return Sentinel{}, nil
	}
	return combine(demands, nextKernel(root)), nil
}

func combine(demands []demand, kernel string) Sentinel {
	slices.SortFunc(demands, func(a, b demand) int { return cmp.Compare(a.source, b.source) })
	var s Sentinel
	var sources, texts, packages []string
	sum := sha256.New()
	field := func(kind, value string) { fmt.Fprintf(sum, "%s %d %s\n", kind, len(value), value) }
	for _, d := range demands {
		sources = append(sources, d.source)
		if d.text != "" && !slices.Contains(texts, d.text) {
			texts = append(texts, d.text)
		}
		packages = append(packages, d.packages...)
		if s.Since.IsZero() || d.since.Before(s.Since) {
			s.Since = d.since
		}
		field("source", d.source)
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	for _, p := range packages {
		field("package", p)
	}
	if kernel != "" {
		field("kernel", kernel)
	}
	s.Source = strings.Join(sources, ",")
	s.Fingerprint = hex.EncodeToString(sum.Sum(nil)[:16])
	s.Reason = reason(s.Source, strings.Join(texts, "; "), packages)
	return s
}

func reason(source, text string, packages []string) string {
	if text == "" {
		text = source + " exists"
	}
	if len(packages) > 0 {
		named := packages[:min(len(packages), shownPkgs)]
		text += ": " + strings.Join(named, ", ")
		if more := len(packages) - len(named); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	if r := []rune(text); len(r) > maxReason {
		return string(r[:maxReason-1]) + "…"
	}
	return text
}

// nextKernel is the kernel that the links kept by Debian's and SUSE's packages would boot, "" when there is none to see.
// The running kernel would not do: the reboot itself changes it.
func nextKernel(root *os.Root) string {
	for _, link := range []string{"vmlinuz", "boot/vmlinuz"} {
		if target, err := root.Readlink(link); err == nil {
			return filepath.Base(target)
		}
	}
	return ""
}

// source is a file whose existence asks for a reboot, by its path on the host.
type source string

// paths are those whose change may change what read returns.
func (s source) paths() []string { return []string{string(s), s.packageList()} }

func (s source) packageList() string { return string(s) + ".pkgs" }

// read returns nil when the file asks for nothing.
func (s source) read(root *os.Root) (*demand, error) {
	info, err := root.Lstat(inRoot(string(s)))
	if absent(err) {
		return nil, nil //nolint:nilnil // nil is the documented "asks for nothing"
	}
	if err != nil {
		return nil, err
	}
	// A hostPath volume of type DirectoryOrCreate leaves a directory of the sentinel's name behind: that asks for nothing.
	if info.IsDir() {
		return nil, nil //nolint:nilnil // as above
	}
	d := &demand{source: string(s), since: info.ModTime()}
	text, err := readRegular(root, string(s), maxContent)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		if d.text = strings.Trim(printable(line), " *"); d.text != "" {
			break
		}
	}
	list, err := readRegular(root, s.packageList(), maxPackages)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(list) {
		if p := printable(line); p != "" {
			d.packages = append(d.packages, p)
		}
	}
	return d, nil
}

// readRegular returns "" for what is not there and for what has no content to read: a device, a pipe (which is never
// waited on), a link that leads out of the host's tree.
func readRegular(root *os.Root, path string, limit int64) (string, error) {
	info, err := root.Stat(inRoot(path))
	if absent(err) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		if link, lerr := root.Lstat(inRoot(path)); lerr == nil && link.Mode()&fs.ModeSymlink != 0 {
			return "", nil
		}
		return "", err
	}
	f, err := root.OpenFile(inRoot(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if absent(err) { // removed in between
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return "", err
	}
	return string(content), nil
}

func inRoot(path string) string { return strings.TrimPrefix(path, "/") }

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// printable drops what must not reach a terminal, a log line or an annotation.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
