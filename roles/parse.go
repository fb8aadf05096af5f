package roles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Limits of what a fact's command may print.
const (
	MaxFactBytes = 64 << 10
	maxDepth     = 64 // of JSON
	maxNumber    = 64 // bytes of one number as text
)

// Parse reads what a fact's command printed. kind is "string" (or ""), "lines", "number", "bool" or
// "json". One line break at the end is not part of a string.
func Parse(kind string, out []byte) (cty.Value, error) {
	if len(out) > MaxFactBytes {
		return cty.NilVal, fmt.Errorf("it printed %d bytes, the limit is %d", len(out), MaxFactBytes)
	}
	if !utf8.Valid(out) {
		return cty.NilVal, errors.New("what it printed is no UTF-8 text")
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(out), "\n"), "\r")
	switch kind {
	case "", "string":
		return cty.StringVal(text), nil
	case "lines":
		if text == "" {
			return cty.ListValEmpty(cty.String), nil
		}
		var lines []cty.Value
		for line := range strings.SplitSeq(text, "\n") {
			lines = append(lines, cty.StringVal(strings.TrimSuffix(line, "\r")))
		}
		return cty.ListVal(lines), nil
	case "number":
		return number(strings.TrimSpace(text))
	case "bool":
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "true", "yes", "1":
			return cty.True, nil
		case "false", "no", "0":
			return cty.False, nil
		}
		return cty.NilVal, fmt.Errorf("it printed %.40q: a bool is true or false, yes or no, 1 or 0", text)
	case "json":
		return fromJSON(out)
	}
	return cty.NilVal, fmt.Errorf("parse %q: it is string, lines, number, bool or json", kind)
}

// number is no larger than a float can be: written out, 1e999999999 would fill the memory.
func number(text string) (cty.Value, error) {
	if err := checkNumber(text); err != nil {
		return cty.NilVal, err
	}
	v, err := cty.ParseNumberVal(text)
	if err != nil {
		return cty.NilVal, fmt.Errorf("it printed %.40q, which is no number", text)
	}
	return v, nil
}

func checkNumber(text string) error {
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case len(text) > maxNumber:
		return fmt.Errorf("it printed a number of %d digits, the limit is %d", len(text), maxNumber)
	case err != nil || math.IsInf(f, 0) || math.IsNaN(f):
		return fmt.Errorf("it printed %.40q, which is no number", text)
	}
	return nil
}

// fromJSON checks depth and numbers before anything is built.
func fromJSON(out []byte) (cty.Value, error) {
	if err := checkJSON(out); err != nil {
		return cty.NilVal, err
	}
	t, err := ctyjson.ImpliedType(out)
	if err != nil {
		return cty.NilVal, fmt.Errorf("what it printed is no JSON: %w", err)
	}
	v, err := ctyjson.Unmarshal(out, t)
	if err != nil {
		return cty.NilVal, fmt.Errorf("what it printed is no JSON: %w", err)
	}
	if v.IsNull() {
		return cty.NilVal, errors.New("it printed null: a fact has a value")
	}
	return v, nil
}

func checkJSON(out []byte) error {
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.UseNumber()
	depth := 0
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("what it printed is no JSON: %w", err)
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxDepth {
				return fmt.Errorf("the JSON it printed is nested deeper than %d", maxDepth)
			}
		case json.Number:
			if err := checkNumber(t.String()); err != nil {
				return err
			}
		}
	}
}
