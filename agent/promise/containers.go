package promise

import (
	"context"
	"errors"
	"time"

	"meshd/policies"
)

// ErrNoSuch: the engine has no container, volume or image of that name.
var ErrNoSuch = errors.New("no such thing")

// Containers is what the keeper of a guest needs of a container engine, in plain words. Implementations
// are safe for concurrent use. Names and ids that the engine does not know give ErrNoSuch.
type Containers interface {
	// Labelled lists the containers that have all these labels, running or not.
	Labelled(ctx context.Context, labels map[string]string) ([]Container, error)
	// Create makes a container and does not start it. A name that is taken is an error.
	Create(ctx context.Context, c ContainerSpec) (id string, err error)
	// Exists reports whether path is there in the container, running or not, its volumes included.
	Exists(ctx context.Context, id, path string) (bool, error)
	// Copy writes a file that only the container's root may read, in a folder that is there.
	Copy(ctx context.Context, id, path string, content []byte) error
	Start(ctx context.Context, id string) error
	// Stop asks with SIGTERM, and kills after grace. One that does not run is no error.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove kills and deletes a container, never its named volumes.
	Remove(ctx context.Context, id string) error
	// Tail is the last that the container printed, at most 4 KiB.
	Tail(ctx context.Context, id string) (string, error)

	// Volume gives the labels of a volume.
	Volume(ctx context.Context, name string) (labels map[string]string, err error)
	MakeVolume(ctx context.Context, name string, labels map[string]string) error
	RemoveVolume(ctx context.Context, name string) error

	// Image gives the id of what has that name now.
	Image(ctx context.Context, name string) (id string, err error)

	// Watch calls changed after each change of a container with these labels, and when changes may have
	// been missed, until stop. changed must not block.
	Watch(labels map[string]string, changed func()) (stop func())
}

// An Engine is a whole container engine: what `meshd image` and the demo need besides.
type Engine interface {
	Containers
	// Import makes an image of these programs alone: the first is what its containers run.
	Import(ctx context.Context, name string, programs ...string) error
	RemoveImage(ctx context.Context, name string) error
	// Gateway is the address of this host on the engine's own bridge.
	Gateway(ctx context.Context) (string, error)
}

// Containers is Open for Site.
func (e *Engines) Containers(kind string) (Containers, error) {
	engine, err := e.Open(kind)
	if err != nil {
		return nil, err
	}
	return engine, nil
}

// A Container is one as the engine has it now.
type Container struct {
	ID, Name          string
	Labels            map[string]string
	ImageID           string
	Running, Paused   bool
	Fresh             bool // was never started
	ExitCode          int
	Started, Finished time.Time // by the engine's clock
	Memory, NanoCPUs  int64
	Networks          []string // sorted; the engine's own bridge is "bridge"
	Restarts          string   // what the engine does when it ends; "" nothing
}

// A ContainerSpec is one to make. The engine is not to start it again by itself.
type ContainerSpec struct {
	Name, Image      string
	Args             []string // for the image's own entry point
	Env              []string
	Labels           map[string]string
	Network          string // "bridge", "host"
	Volume, Home     string // Volume is mounted at Home
	Mounts           []policies.Mount
	Ports            []policies.Port
	Memory, NanoCPUs int64
}

// Labels of what a node makes in an engine: only what has its id is ever touched.
const (
	LabelNode    = "meshd.node"
	LabelGuest   = "meshd.guest"
	labelPromise = "meshd.promise"
	labelSpec    = "meshd.spec" // hash of the ContainerSpec it was made from
)
