package roles

import (
	"bytes"
	"context"
	"net"
	"os"
	"runtime"
	"slices"

	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/zclconf/go-cty/cty"
)

// Builtin gathers the facts that every node has (POLICY.md, Names). One that this machine does not tell is
// left out, and so unknown. It reads files of the system, and on some systems runs its tools; ctx ends that.
func Builtin(ctx context.Context, workDir string) map[string]cty.Value {
	facts := map[string]cty.Value{
		"os":        cty.StringVal(runtime.GOOS),
		"arch":      cty.StringVal(runtime.GOARCH),
		"cpus":      cty.NumberIntVal(int64(runtime.NumCPU())),
		"work_dir":  cty.StringVal(workDir),
		"container": cty.BoolVal(inContainer(ctx)),
	}
	if distro, _, _, err := host.PlatformInformationWithContext(ctx); err == nil && distro != "" {
		facts["distro"] = cty.StringVal(distro)
	}
	if kernel, err := host.KernelVersionWithContext(ctx); err == nil && kernel != "" {
		facts["kernel"] = cty.StringVal(kernel)
	}
	if name, err := os.Hostname(); err == nil {
		facts["hostname"] = cty.StringVal(name)
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		facts["memory_mb"] = cty.NumberUIntVal(m.Total >> 20)
	}
	if seconds, err := host.UptimeWithContext(ctx); err == nil {
		facts["uptime_h"] = cty.NumberUIntVal(seconds / 3600)
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		facts["addresses"] = addresses(addrs)
	}
	return facts
}

// addresses lists those by which other machines may reach this one, sorted as text.
func addresses(addrs []net.Addr) cty.Value {
	var texts []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			texts = append(texts, n.IP.String())
		}
	}
	slices.Sort(texts)
	list := make([]cty.Value, 0, len(texts))
	for _, t := range slices.Compact(texts) {
		list = append(list, cty.StringVal(t))
	}
	if len(list) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	return cty.ListVal(list)
}

// inContainer goes by the marks that Docker, Podman and systemd leave, then by what gopsutil knows.
func inContainer(ctx context.Context) bool {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	if env, err := os.ReadFile("/proc/1/environ"); err == nil {
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.HasPrefix(kv, []byte("container=")) {
				return true
			}
		}
	}
	system, role, err := host.VirtualizationWithContext(ctx)
	return err == nil && role == "guest" && slices.Contains([]string{"docker", "lxc", "rkt", "linux-vserver"}, system)
}
