package report

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	s := SpreadOf([]time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond})
	if s.Min != Millis(10*time.Millisecond) || s.Median != Millis(25*time.Millisecond) || s.Max != Millis(40*time.Millisecond) {
		t.Errorf("min / median / max %v", s)
	}
	text, err := json.Marshal(s)
	if want := `{"minMs":10.0,"medianMs":25.0,"maxMs":40.0,"samplesMs":[30.0,10.0,20.0,40.0]}`; err != nil || string(text) != want {
		t.Errorf("JSON %s, error %v, want %s", text, err, want)
	}
}
