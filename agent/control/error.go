package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// A Code tells kinds of errors apart; it is the exit code of meshctl.
type Code int

// The codes of SPEC 10. NotKept and Interrupted are made by meshctl alone.
const (
	Failed      Code = 1
	Usage       Code = 2
	Unreachable Code = 3
	NotFound    Code = 4
	TimedOut    Code = 5
	NotKept     Code = 10
	Interrupted Code = 130
)

// An Error carries its kind across the door.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // what, why, what next
}

// Error returns the message alone.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error of the given kind. %w works, but what it wraps stays on this side of the door.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Errorf(format, args...).Error()}
}

// CodeOf returns the exit code for err: 0 for nil, Failed for an error of no known kind.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, context.Canceled):
		return Interrupted
	}
	return Failed
}

// told returns err as the other side is told it.
func told(err error) *Error {
	code := CodeOf(err)
	if code == Interrupted {
		return Errorf(Unreachable, "meshd is stopping: ask again when it is back")
	}
	return &Error{Code: code, Message: err.Error()}
}

func (c Code) httpStatus() int {
	switch c {
	case Usage:
		return http.StatusBadRequest
	case Unreachable:
		return http.StatusServiceUnavailable
	case NotFound:
		return http.StatusNotFound
	case TimedOut:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
