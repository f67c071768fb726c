package observe

// owner says whose a Node's cordon is.
type owner int

const (
	nobody owner = iota // there is none
	baton
	people
	// lifted: people took Baton's cordon off, and Baton has not written since. One that is laid now cannot be told from
	// Baton's own: it leaves no trace.
	lifted
)

// cordons is the book of whose cordon is whose, by the name of the Node. Baton cordons in the write that enters Draining, and
// changes the record with whatever it writes.
type cordons map[string]owner

// enter brings the book up to date with the version n, which follows was; nil: n is the first that is seen. It tells whether
// this write took off what people had laid, and was not theirs.
func (c cordons) enter(was, n *Node) (lost bool) {
	if !n.Exists {
		delete(c, n.Name)
		return false
	}
	if was == nil || !was.Exists {
		was = &Node{Phase: n.Phase, Record: n.Record}
		if n.Unschedulable && taken(n.Phase) {
			was.Phase = Idle // as if it were the first write of the cycle
		}
	}
	written := was.Record != n.Record || was.Phase != n.Phase // by Baton
	switch own := c[n.Name]; {
	case n.Unschedulable && !was.Unschedulable:
		c[n.Name] = people
		if own == lifted && !written || !taken(was.Phase) && taken(n.Phase) {
			c[n.Name] = baton
		}
	case !n.Unschedulable && was.Unschedulable:
		c[n.Name] = nobody
		if own == baton && !written {
			c[n.Name] = lifted
		}
		return own == people && written && was.By == n.By
	case own == lifted && written:
		c[n.Name] = nobody
	case own == baton && n.Unschedulable && taken(was.Phase) && !taken(n.Phase) && n.Hold:
		c[n.Name] = people // the hold's wish is that it stays
	}
	return false
}
