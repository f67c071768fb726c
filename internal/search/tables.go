package search

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
)

// Numbers of rows. Row 0 is "none" in each table.
type (
	recordID  uint16
	historyID uint16
	leaseID   uint16
	changeID  uint16
	argID     uint16
)

// table numbers the values that the real code produced, so that a state holds two bytes instead of a record.
type table[K comparable, V any] struct {
	rows []V
	ids  map[K]uint16
}

func newTable[K comparable, V any]() *table[K, V] {
	return &table[K, V]{rows: make([]V, 1), ids: map[K]uint16{}}
}

func (t *table[K, V]) id(key K, v V) uint16 {
	if id, ok := t.ids[key]; ok {
		return id
	}
	if len(t.rows) > math.MaxUint16 {
		panic("search: more different values than two bytes can number")
	}
	id := uint16(len(t.rows))
	t.rows = append(t.rows, v)
	t.ids[key] = id
	return id
}

// change is one PATCH of a Node.
type change struct {
	record      recordID
	history     historyID
	keepHistory bool
	cordon      int8 // 1 lays it, -1 takes it off, 0 leaves it
	done        bool // it says that a reboot was proven
	clearAck    bool
}

// arg is what a verb on a slot carries besides the slot.
type arg struct {
	claim      agent.Claim // without its instance
	nomination marshal.Nomination
	hold       string
	index      int
}

// lease is a Lease with what is asked of it often.
type lease struct {
	object  *coordinationv1.Lease
	slot    lock.Slot
	holder  int // node; -1: empty
	uid     int // of the holder's Node
	nominee int // node; -1: none
}

// The world's clock stands still: whatever depends on the passing of time is a choice of the search.
func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

const (
	soon = time.Hour      // later than epoch: a time that has not passed
	long = 48 * time.Hour // later than any time limit
)

// The names of things.
func nodeName(n int) string           { return string(rune('a' + n)) }
func nodeUID(n int, uid uint8) string { return fmt.Sprintf("uid-%s-%d", nodeName(n), uid) }
func slotName(k int) string           { return marshal.SlotName(group, k) }
func bootID(boot uint8) string        { return "boot-" + strconv.Itoa(int(boot)) }
func fingerprint(s uint8) string      { return "fingerprint-" + strconv.Itoa(int(s)) }
func instanceID(i uint8) string       { return "instance-" + strconv.Itoa(int(i)) }
func cycleID(c uint8) string          { return "cycle-" + strconv.Itoa(int(c)) }

// instanceNumber is the way back from instanceID.
func instanceNumber(id string) uint8 {
	i, err := strconv.ParseUint(strings.TrimPrefix(id, "instance-"), 10, 8)
	if err != nil {
		return 0
	}
	return uint8(i)
}

// nodeNumber is the way back from nodeName; -1 for none.
func nodeNumber(name string) int {
	if len(name) != 1 {
		return -1
	}
	return int(name[0] - 'a')
}

// record numbers a record. What only people read and what only measures time is left out.
func (m *model) record(r *agent.Record) recordID {
	if r == nil {
		return 0
	}
	c := *r
	c.Version, c.Instance, c.Message, c.Backoffs, c.HookRun = agent.RecordVersion, "", "", 0, 0
	if !c.Until.IsZero() {
		c.Until = epoch().Add(soon)
	}
	return recordID(m.records.id(m.key(c), &c))
}

func (m *model) history(h agent.History) historyID {
	if h.Ended == "" && len(h.Cycles) == 0 {
		return 0
	}
	return historyID(m.histories.id(m.key(h), h))
}

// key makes a table's key of a value that cannot be one.
func (m *model) key(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		m.fail(fmt.Errorf("numbering a %T: %w", v, err))
	}
	return string(b)
}

// holder returns the node that holds a Lease, -1 for none.
func (m *model) holder(id leaseID) int {
	if id == 0 {
		return -1
	}
	return m.leases.rows[id].holder
}

// slotOf returns what a Lease says, without a version.
func (m *model) slotOf(s slot) lock.Slot {
	sl := m.leases.rows[s.lease].slot
	if sl.Holder != "" {
		sl.Instance = instanceID(s.instance)
	}
	return sl
}

func (m *model) phase(id recordID) agent.Phase {
	if id == 0 {
		return agent.Idle
	}
	return m.records.rows[id].Phase
}

// nodeOf is the way back from nodeUID; node -1 for none.
func nodeOf(id string) (n, uid int) {
	parts := strings.Split(id, "-")
	if len(parts) != 3 {
		return -1, 0
	}
	uid, err := strconv.Atoi(parts[2])
	if err != nil {
		return -1, 0
	}
	return nodeNumber(parts[1]), uid
}
