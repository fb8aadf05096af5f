//go:build nocontainers

package promise

import "fmt"

// Engines of a program that was built without any.
type Engines struct{}

// NewEngines gives Engines that open none.
func NewEngines() *Engines { return &Engines{} }

// Open refuses.
func (*Engines) Open(kind string) (Engine, error) {
	return nil, fmt.Errorf("this meshd was built without containers (tag nocontainers): guests of kind %q need another build, or kind = \"process\"", kind)
}

// Close does nothing.
func (*Engines) Close() error { return nil }
