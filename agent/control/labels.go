package control

import (
	"encoding/json"
	"strings"
)

// Labels returns the test that labels, each key=value, ask for: all of them have to match. A label is a tag where the items have tags, else a field by its name
// in JSON; a list matches when it holds the value.
func Labels[T any](labels []string) (func(T) (bool, error), error) {
	var none T
	known, err := fields(none)
	if err != nil {
		return nil, err
	}
	for _, label := range labels {
		key, _, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, Errorf(Usage, "label %q: want key=value", label)
		}
		if _, isField := known[key]; !isField && known["tags"] == nil {
			return nil, Errorf(Usage, "label %q: there is no field %q here: see the fields with -o json", label, key)
		}
	}
	return func(item T) (bool, error) {
		if len(labels) == 0 {
			return true, nil
		}
		have, err := fields(item)
		if err != nil {
			return false, err
		}
		tags := map[string]string{}
		if raw := have["tags"]; raw != nil {
			if err := json.Unmarshal(raw, &tags); err != nil {
				return false, err
			}
		}
		for _, label := range labels {
			key, want, _ := strings.Cut(label, "=")
			if tag, ok := tags[key]; ok {
				if tag != want {
					return false, nil
				}
			} else if !holds(have[key], want) {
				return false, nil
			}
		}
		return true, nil
	}, nil
}

func fields[T any](item T) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(item)
	if err != nil {
		return nil, err
	}
	m := map[string]json.RawMessage{}
	return m, json.Unmarshal(b, &m)
}

// holds reports whether a JSON value is want, or a list of strings with want in it.
func holds(raw json.RawMessage, want string) bool {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text == want
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		for _, s := range list {
			if s == want {
				return true
			}
		}
		return false
	}
	return string(raw) == want
}
