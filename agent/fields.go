package agent

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
)

// fields are those of a JSON object that this version does not know. They are kept: a newer agent wrote them, and will
// want them when it is back. What changes the meaning of the others raises the version.
type fields map[string]json.RawMessage

// unknown returns the fields of a JSON object that the struct type of known does not have.
func unknown(object []byte, known any) (fields, error) {
	var all fields
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, err
	}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(known)) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		delete(all, name)
	}
	return all, nil
}

// with adds the fields to a JSON object that has none of them.
func (f fields) with(object []byte, err error) ([]byte, error) {
	if err != nil || len(f) == 0 {
		return object, err
	}
	var all fields
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, err
	}
	maps.Copy(all, f)
	return json.Marshal(all)
}

// UnmarshalJSON keeps what it does not know.
func (r *Record) UnmarshalJSON(b []byte) (err error) {
	type plain Record
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	r.rest, err = unknown(b, plain{})
	return err
}

// MarshalJSON writes also what it did not know.
func (r Record) MarshalJSON() ([]byte, error) {
	type plain Record
	return r.rest.with(json.Marshal(plain(r)))
}

// UnmarshalJSON keeps what it does not know.
func (s *Settings) UnmarshalJSON(b []byte) (err error) {
	type plain Settings
	if err := json.Unmarshal(b, (*plain)(s)); err != nil {
		return err
	}
	s.rest, err = unknown(b, plain{})
	return err
}

// MarshalJSON writes also what it did not know.
func (s Settings) MarshalJSON() ([]byte, error) {
	type plain Settings
	return s.rest.with(json.Marshal(plain(s)))
}
