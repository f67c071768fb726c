package main

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"kubebaton.io/baton/agent"
)

// trimLook is how often the agent looks whether it has something to give back: after its start, and after a cycle.
const trimLook = 15 * time.Second

// trim keeps the agent small while it has nothing to do, which is most of its life. Starting runs through the
// registration of every API group that client-go links, 20 MiB of code and tables that an idle agent never touches
// again; they stay mapped and count as its memory until somebody says that they are not needed.
func (d *daemon) trim(ctx context.Context) error {
	t := time.NewTicker(trimLook)
	defer t.Stop()
	for done := -1; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		s := d.agent.Status()
		if s.Phase != agent.Idle || s.Moves == done {
			continue
		}
		done = s.Moves
		debug.FreeOSMemory()
		if err := unmapProgram(); err != nil {
			d.log.Debug("giving pages back", "err", err)
		}
	}
}

// relocated tells whether a program is given its addresses when it is loaded (elf(5), ET_DYN: built with -buildmode=pie). They stand in
// pages that are read-only from then on, and that no file has.
func relocated(exe string) (bool, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return false, fmt.Errorf("reading the program: %w", err)
	}
	defer func() { _ = f.Close() }()
	return f.Type != elf.ET_EXEC, nil
}

// unmapProgram drops this program's own read-only pages from its memory. They are clean copies of the executable file:
// what is needed again is mapped again from the page cache (madvise(2), MADV_DONTNEED).
func unmapProgram() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the program: %w", err)
	}
	if moves, err := relocated(exe); moves || err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("reading the memory map: %w", err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var perms string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &perms); err != nil {
			continue
		}
		if !strings.HasSuffix(lines.Text(), " "+exe) || strings.Contains(perms, "w") {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return nil
}
