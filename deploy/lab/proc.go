package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cpuOf is the processor time that a live process has used, to the nanosecond: of its threads, each of
// which the Go runtime keeps to the end.
func cpuOf(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(tasks) == 0 {
		return 0, fmt.Errorf("no /proc/%d/task/*/schedstat: %w", pid, errors.ErrUnsupported)
	}
	var sum time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that ended between the two calls
		}
		first, _, _ := bytes.Cut(b, []byte(" "))
		ns, err := strconv.ParseInt(string(first), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func cpuOfAll(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// rssOf is the memory that a process holds now, and what of it are no pages of files (bytes).
func rssOf(pid int) (total, anonymous float64, err error) {
	f, err := memoryOf(pid, "VmRSS", "RssAnon")
	return f[0], f[1], err
}

// peakOf is the most memory that a process ever held, or since forgetPeak (bytes).
func peakOf(pid int) (float64, error) {
	f, err := memoryOf(pid, "VmHWM")
	return f[0], err
}

// memoryOf reads fields of a process's status (bytes).
func memoryOf(pid int, names ...string) ([]float64, error) {
	out := make([]float64, len(names))
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return out, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		if i := slices.Index(names, name); i >= 0 {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			out[i] = kb * 1024
		}
	}
	return out, nil
}

// forgetPeak makes what the process holds now its peak.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return nil
}

// wireBytes is what went over the loopback of this network so far, IP headers included.
func wireBytes() (float64, error) {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, errors.New("/proc/self/net/dev knows no lo")
}
