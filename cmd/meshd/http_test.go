package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Where other machines reach the port there is health and metrics, and nothing that names a node.
func TestFarPortServesNoPage(t *testing.T) {
	var trouble error
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	h := healthAndMetrics(func() error { return trouble }, metrics)
	code := func(method, path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "http://mesh.example"+path, http.NoBody))
		return w.Code
	}
	for path, want := range map[string]int{
		"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/metrics": http.StatusOK, "/": http.StatusNotFound, "/why": http.StatusNotFound,
	} {
		if got := code(http.MethodGet, path); got != want {
			t.Errorf("GET %s: %d, want %d", path, got, want)
		}
	}
	if got := code(http.MethodPost, "/metrics"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: %d", got)
	}
	trouble = errors.New("the loop does not answer")
	if got := code(http.MethodGet, "/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz of a node that is not ready: %d", got)
	}
}
