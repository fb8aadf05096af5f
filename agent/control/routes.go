package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The paths of the door. Questions are GET, orders are POST.
const (
	pathMembers   = "/v1/members"
	pathArtifacts = "/v1/artifacts"
	pathPromises  = "/v1/promises"
	pathRoles     = "/v1/roles"
	pathStory     = "/v1/story"
	pathEvents    = "/v1/events"
	pathWhy       = "/v1/why"
	pathPublish   = "/v1/publish"
	pathGet       = "/v1/get"
	pathWithdraw  = "/v1/withdraw"
	pathRetry     = "/v1/retry"
	pathPause     = "/v1/pause"
	pathLogs      = "/v1/logs"
	pathInvite    = "/v1/invite"
	pathRevoke    = "/v1/revoke"
	pathForget    = "/v1/forget"
	pathTags      = "/v1/tags"
	pathLimits    = "/v1/limits"
	pathScore     = "/v1/score"
	pathDiff      = "/v1/score/diff"
	pathDoctor    = "/v1/doctor"
	pathOffline   = "/v1/offline"
	pathBundle    = "/v1/bundle"
	pathVersion   = "/v1/version"
)

// A document is every answer that is no stream.
type document[T any] struct {
	APIVersion string `json:"apiVersion"`
	Items      []T    `json:"items"`
	Error      *Error `json:"error,omitempty"`
}

// A token is the item that an invite is answered with.
type token struct {
	Token string `json:"token"`
}

func (s *server) routes() http.Handler {
	b, mux := s.backend, http.NewServeMux()
	mux.HandleFunc("GET "+pathMembers, list(func(r *http.Request) ([]Member, error) { return b.Members(r.Context()) }))
	mux.HandleFunc("GET "+pathArtifacts, list(func(r *http.Request) ([]Artifact, error) {
		return b.Artifacts(r.Context(), r.FormValue("pattern"), isSet(r, "all"))
	}))
	mux.HandleFunc("GET "+pathPromises, list(func(r *http.Request) ([]Promise, error) {
		return b.Promises(r.Context(), r.FormValue("address"), r.FormValue("node"), isSet(r, "all"))
	}))
	mux.HandleFunc("GET "+pathRoles, list(func(r *http.Request) ([]Role, error) { return b.Roles(r.Context()) }))
	mux.HandleFunc("GET "+pathStory, list(func(r *http.Request) ([]StoryItem, error) {
		since, err := seconds(r, "since_seconds")
		if err != nil {
			return nil, err
		}
		return b.Story(r.Context(), since, nil)
	}))
	mux.HandleFunc("GET "+pathWhy, list(func(r *http.Request) ([]StoryItem, error) { return b.Why(r.Context(), r.FormValue("subject")) }))
	mux.HandleFunc("GET "+pathScore, one(func(r *http.Request) (Score, error) { return b.Score(r.Context()) }))
	mux.HandleFunc("GET "+pathDoctor, list(func(r *http.Request) ([]Trouble, error) { return b.Doctor(r.Context()) }))
	mux.HandleFunc("GET "+pathVersion, one(func(r *http.Request) (Version, error) { return b.Version(r.Context()) }))
	mux.HandleFunc("POST "+pathWithdraw, order(func(r *http.Request) error { return b.Withdraw(r.Context(), r.FormValue("name")) }))
	mux.HandleFunc("POST "+pathRetry, order(func(r *http.Request) error { return b.Retry(r.Context(), r.FormValue("address")) }))
	mux.HandleFunc("POST "+pathRevoke, order(func(r *http.Request) error { return b.Revoke(r.Context(), r.FormValue("node")) }))
	mux.HandleFunc("POST "+pathForget, order(func(r *http.Request) error { return b.Forget(r.Context(), r.FormValue("node")) }))
	mux.HandleFunc("POST "+pathPause, order(func(r *http.Request) error {
		d, err := seconds(r, "for_seconds")
		if err != nil {
			return err
		}
		return b.Pause(r.Context(), r.FormValue("address"), d)
	}))
	mux.HandleFunc("POST "+pathTags, one(func(r *http.Request) (Tags, error) {
		var req Tags
		if err := readOrder(r, "tags", &req); err != nil {
			return Tags{}, err
		}
		all, err := b.SetTags(r.Context(), req.Tags)
		return Tags{all}, err
	}))
	mux.HandleFunc("GET "+pathLimits, list(func(r *http.Request) ([]Limit, error) { return b.Limits(r.Context()) }))
	mux.HandleFunc("POST "+pathLimits, list(func(r *http.Request) ([]Limit, error) {
		var req LimitChange
		if err := readOrder(r, "limit", &req); err != nil {
			return nil, err
		}
		if err := req.Check(); err != nil {
			return nil, err
		}
		return b.SetLimit(r.Context(), req)
	}))
	mux.HandleFunc("POST "+pathOffline, order(func(r *http.Request) error {
		d, err := seconds(r, "for_seconds")
		if err != nil {
			return err
		}
		return b.Offline(r.Context(), d, isSet(r, "on"))
	}))
	mux.HandleFunc("POST "+pathInvite, one(func(r *http.Request) (token, error) { return invite(b, r) }))
	s.streams(mux)
	s.bundles(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusBadRequest, fmt.Sprintf("this meshd knows no %s %s: it may be older than the program that asks", r.Method, r.URL.Path))
	})
	return mux
}

// streams adds the answers that take time. Their parameters are in the URL alone: the body is a tree.
func (s *server) streams(mux *http.ServeMux) {
	b := s.backend
	mux.HandleFunc("GET "+pathEvents, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			since, err := seconds(r, "since_seconds")
			if err != nil {
				return nil, err
			}
			_, err = b.Story(ctx, since, func(i StoryItem) error {
				item, err := encode(i)
				if err != nil {
					return err
				}
				return out.line(Line{Type: LineItem, Item: item}, nil)
			})
			return nil, err
		})
	})
	mux.HandleFunc("POST "+pathPublish, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			q := r.URL.Query()
			return b.Publish(ctx, q.Get("name"), q.Get("version"), r.Body, out.progress)
		})
	})
	mux.HandleFunc("POST "+pathScore, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, _ *stream) (any, error) { return b.PublishScore(ctx, r.Body) })
	})
	mux.HandleFunc("POST "+pathDiff, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, _ *stream) (any, error) {
			changes, err := b.DiffScore(ctx, r.Body)
			return filled(changes), err
		})
	})
	mux.HandleFunc("GET "+pathGet, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			buf := bufio.NewWriterSize(out, maxDataBytes)
			if err := b.Get(ctx, r.FormValue("ref"), buf, out.progress); err != nil {
				return nil, err
			}
			return nil, buf.Flush()
		})
	})
	mux.HandleFunc("GET "+pathLogs, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			if isSet(r, "follow") {
				return nil, b.Logs(ctx, r.FormValue("address"), true, out)
			}
			buf := bufio.NewWriterSize(out, maxDataBytes)
			if err := b.Logs(ctx, r.FormValue("address"), false, buf); err != nil {
				return nil, err
			}
			return nil, buf.Flush()
		})
	})
}

func invite(b Backend, r *http.Request) (token, error) {
	var req InviteRequest
	if err := readOrder(r, "invite", &req); err != nil {
		return token{}, err
	}
	text, err := b.Invite(r.Context(), req)
	return token{text}, err
}

// readOrder reads the JSON body of an order into v.
func readOrder(r *http.Request, what string, v any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOrderBytes+1))
	if err != nil {
		return Errorf(Usage, "read the %s request: %w", what, err)
	}
	if len(body) > maxOrderBytes {
		return Errorf(Usage, "the %s request is longer than %d bytes", what, maxOrderBytes)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return Errorf(Usage, "the %s request is not what this meshd understands: %w", what, err)
	}
	return nil
}

// list answers with the items that ask returns.
func list[T any](ask func(*http.Request) ([]T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		items, err := ask(r)
		if err != nil {
			answerError(w, told(err))
			return
		}
		answer(w, http.StatusOK, document[T]{APIVersion: APIVersion, Items: filled(items)})
	}
}

func one[T any](ask func(*http.Request) (T, error)) http.HandlerFunc {
	return list(func(r *http.Request) ([]T, error) {
		item, err := ask(r)
		return []T{item}, err
	})
}

func order(do func(*http.Request) error) http.HandlerFunc {
	return list(func(r *http.Request) ([]token, error) { return nil, do(r) })
}

func answer[T any](w http.ResponseWriter, status int, d document[T]) {
	b, err := encode(d)
	if err != nil {
		answerError(w, Errorf(Failed, "encode the answer: %w", err))
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(idleLimit))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a caller that has gone needs no answer
}

func answerError(w http.ResponseWriter, e *Error) {
	answer(w, e.Code.httpStatus(), document[token]{APIVersion: APIVersion, Items: []token{}, Error: e})
}

// refuse answers before any question is looked at.
func refuse(w http.ResponseWriter, r *http.Request, status int, message string) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // answer before the question has been sent to its end
	code := Failed
	if status == http.StatusBadRequest {
		code = Usage
	}
	answer(w, status, document[token]{APIVersion: APIVersion, Items: []token{}, Error: &Error{code, message}})
	drain(rc, r)
}

// encode returns v as one line of JSON in which <, > and & stand as they are.
func encode(v any) ([]byte, error) {
	var buf lineBuffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return buf, err
}

type lineBuffer []byte

func (b *lineBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func isSet(r *http.Request, name string) bool { return r.FormValue(name) == "true" }

// seconds reads a parameter that may be absent; a day in a thousand years is more than a meshd remembers.
func seconds(r *http.Request, name string) (time.Duration, error) {
	text := r.FormValue(name)
	if text == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && !(f >= 0 && f <= 1e9) {
		err = errors.New("out of range")
	}
	if err != nil {
		return 0, Errorf(Usage, "%s %q: want seconds from 0 to 1e9", name, text)
	}
	return time.Duration(f * float64(time.Second)), nil
}
