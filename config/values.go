package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as in "1h30m". The zero value is "0s".
type Duration time.Duration

// String leaves out units that are zero: 15m, not 15m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON writes String.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what time.ParseDuration does; null leaves d as it is.
func (d *Duration) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	parsed, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	*d = Duration(parsed)
	return nil
}

// Amount is a number of nodes, or a share of a group's nodes in per cent. The zero value is
// no amount at all.
type Amount struct {
	Value   int
	Percent bool
}

const maxAmount = 1000 // slots of a group; a Lease each

var errAmount = errors.New(`must be a number from 1 to 1000 or per cent from "1%" to "100%"`)

// parseAmount reads a number, given as such, or per cent, given as a string.
func parseAmount(text string, isString bool) (Amount, error) {
	digits, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || digits != strconv.Itoa(n):
		return Amount{}, errAmount
	case percent && n < 1, !percent && n < 1 && !isString:
		return Amount{}, errors.New(`must be at least 1 or 1%`)
	case isString && !percent:
		return Amount{}, errors.New(`must be per cent, such as "20%", or a number without quotes`)
	case percent && n > 100, !percent && n > maxAmount:
		return Amount{}, errAmount
	}
	return Amount{Value: n, Percent: percent}, nil
}

func (a Amount) String() string {
	if a.Percent {
		return strconv.Itoa(a.Value) + "%"
	}
	return strconv.Itoa(a.Value)
}

// MarshalJSON writes a number or a string that ends in %.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a.Percent {
		return json.Marshal(a.String())
	}
	return json.Marshal(a.Value)
}

// UnmarshalJSON reads what MarshalJSON writes; null leaves a as it is.
func (a *Amount) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	isString := strings.HasPrefix(text, `"`)
	if isString {
		if err := json.Unmarshal(data, &text); err != nil {
			return fmt.Errorf("reading an amount: %w", err)
		}
	}
	parsed, err := parseAmount(text, isString)
	if err != nil {
		return fmt.Errorf("reading an amount %q: %w", text, err)
	}
	*a = parsed
	return nil
}
