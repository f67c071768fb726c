package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// checker holds a decoded file to the schema and collects what is wrong with it.
type checker struct {
	fields   map[string]Field
	children map[string][]string // names of an object's fields, in the file's order
	faults   Faults
}

func newChecker() *checker {
	k := &checker{fields: map[string]Field{}, children: map[string][]string{}}
	for _, f := range schema() {
		k.fields[f.Path] = f
		if f.Path == "" || strings.HasSuffix(f.Path, "[]") {
			continue
		}
		parent, name := "", f.Path
		if i := strings.LastIndexByte(f.Path, '.'); i >= 0 {
			parent, name = f.Path[:i], f.Path[i+1:]
		}
		k.children[parent] = append(k.children[parent], name)
	}
	return k
}

func (k *checker) fault(path, value, fix string) {
	k.faults = append(k.faults, Fault{Path: path, Value: value, Fix: fix})
}

// faulty reports whether something was said already of path or of what holds it.
func (k *checker) faulty(path string) bool {
	return slices.ContainsFunc(k.faults, func(f Fault) bool {
		rest, ok := strings.CutPrefix(path, f.Path)
		return ok && f.Path != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// check returns value without what is wrong in it, so that the rest can be looked at too.
// at is the value's path in this file, such as groups[1].name; key is its field's, groups[].name.
func (k *checker) check(value any, at, key string) (clean any, ok bool) {
	f := k.fields[key]
	switch f.kind {
	case object:
		fields, is := value.(map[string]any)
		if !is {
			k.fault(at, show(value), "must hold fields")
			return map[string]any{}, false
		}
		return k.checkObject(fields, at, key), true
	case list:
		elements, is := value.([]any)
		if !is {
			k.fault(at, show(value), "must be a list")
			return nil, false
		}
		return k.checkList(elements, f, at, key)
	case stringMap:
		return k.checkStrings(value, at)
	case duration, integer, text, choice, amount, boolean:
	}
	if fix := f.fix(value); fix != "" {
		k.fault(at, show(value), fix)
		return nil, false
	}
	return value, true
}

func (k *checker) checkObject(fields map[string]any, at, key string) map[string]any {
	clean := map[string]any{}
	known := k.children[key]
	for _, name := range known {
		value, given := fields[name]
		if !given || value == nil {
			if k.fields[join(key, name)].Required {
				k.fault(join(at, name), "", "must be set"+k.hint(join(key, name)))
			}
			continue
		}
		if v, ok := k.check(value, join(at, name), join(key, name)); ok {
			clean[name] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			k.fault(join(at, name), "", "unknown field: there are "+strings.Join(known, ", "))
		}
	}
	if whole := k.fields[key].whole; whole != nil {
		if name, fix := whole(fields); fix != "" {
			value := ""
			if fields[name] != nil {
				value = show(fields[name])
			}
			k.fault(join(at, name), value, fix)
		}
	}
	return clean
}

func (k *checker) hint(key string) string {
	if f := k.fields[key]; f.kind == choice {
		return " to " + strings.Join(f.values, ", ")
	}
	return ""
}

func (k *checker) checkList(elements []any, f Field, at, key string) (any, bool) {
	if n := int64(len(elements)); n < f.low || n > f.high {
		k.fault(at, fmt.Sprintf("%d elements", n), "must have "+f.bounds())
		return nil, false
	}
	clean := make([]any, len(elements))
	for i, e := range elements {
		v, ok := k.check(e, fmt.Sprintf("%s[%d]", at, i), key+"[]")
		if !ok && v == nil {
			v = "" // keeps the others' indexes
		}
		clean[i] = v
	}
	return clean, true
}

func (k *checker) checkStrings(value any, at string) (any, bool) {
	entries, is := value.(map[string]any)
	if !is {
		k.fault(at, show(value), "must be a map of strings")
		return nil, false
	}
	clean := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if _, is := entries[name].(string); !is {
			k.fault(fmt.Sprintf("%s[%s]", at, name), show(entries[name]), "must be a string: put it in quotes")
			continue
		}
		clean[name] = entries[name]
	}
	return clean, true
}

// fix says what a scalar must be; "" when it is.
func (f *Field) fix(value any) string {
	written, isString := value.(string)
	number, isNumber := value.(json.Number)
	switch f.kind {
	case duration:
		d, err := time.ParseDuration(written)
		switch {
		case !isString || err != nil:
			return `must be a duration with a unit, such as "90s", "15m" or "1h30m"`
		case int64(d) < f.low || int64(d) > f.high:
			return "must be from " + f.bounds()
		}
	case integer:
		n, err := strconv.ParseInt(number.String(), 10, 64)
		switch {
		case !isNumber || err != nil:
			return "must be a whole number, " + f.bounds()
		case n < f.low || n > f.high:
			return "must be from " + f.bounds()
		}
	case amount:
		if !isString && !isNumber {
			return errAmount.Error()
		}
		if isNumber {
			written = number.String()
		}
		if _, err := parseAmount(written, isString); err != nil {
			return err.Error()
		}
	case choice:
		if !isString || !slices.Contains(f.values, written) {
			return "must be " + strings.Join(f.values, " or ")
		}
	case text:
		return f.fixText(written, isString)
	case boolean:
		if _, is := value.(bool); !is {
			return "must be true or false, without quotes"
		}
	case object, list, stringMap:
	}
	return ""
}

func (f *Field) fixText(written string, isString bool) string {
	n := int64(utf8.RuneCountInString(written))
	switch {
	case !isString:
		return "must be a string: put it in quotes"
	case n == 0 && f.low > 0:
		return "must not be empty"
	case n > f.high:
		return "must have " + f.bounds()
	}
	return ""
}

// show is a value as a fault shows it.
func show(value any) string {
	switch v := value.(type) {
	case string:
		if runes := []rune(v); len(runes) > 80 {
			v = string(runes[:80]) + "…"
		}
		return strconv.Quote(v)
	case nil:
		return "null"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
