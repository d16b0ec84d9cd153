package main

import (
	"bytes"
	"fmt"
	"time"
)

const (
	// maxDigits is the greatest number of digits on either side of a time's point.
	maxDigits     = 18
	attosInSecond = 1_000_000_000_000_000_000
	attosInNano   = 1_000_000_000
	// maxLeadSeconds: a stamp counts as at most this much later than its receipt.
	maxLeadSeconds = 60
	// maxAheadSeconds: a record further ahead of the server's clock comes from a server with a wrong
	// clock. An update replaces it.
	maxAheadSeconds = 120
	maxEpoch        = 1<<32 - 1
)

// posixTime is an exact time. A float64 cannot hold the nanoseconds of current times. So a time is
// two integers: seconds since 1970 and attoseconds (10⁻¹⁸ s). They hold every time that the
// protocol allows.
type posixTime struct{ seconds, attos int64 }

// now reads the wall clock.
func now() posixTime {
	t := time.Now()
	return posixTime{t.Unix(), int64(t.Nanosecond()) * attosInNano}
}

// parseTime parses 1–18 digits, and optionally a point and 1–18 digits.
func parseTime(text []byte) (posixTime, bool) {
	whole, fraction, hasPoint := bytes.Cut(text, []byte("."))
	if len(whole) > maxDigits || len(fraction) > maxDigits {
		return posixTime{}, false
	}
	seconds, ok := number(whole)
	attos := uint64(0)
	if ok && hasPoint {
		attos, ok = number(fraction)
		for i := len(fraction); i < maxDigits; i++ {
			attos *= 10
		}
	}
	return posixTime{int64(seconds), int64(attos)}, ok
}

func (t posixTime) compare(other posixTime) int {
	switch {
	case t.seconds != other.seconds:
		return sign(t.seconds - other.seconds)
	default:
		return sign(t.attos - other.attos)
	}
}

func sign(difference int64) int {
	switch {
	case difference < 0:
		return -1
	case difference > 0:
		return 1
	}
	return 0
}

// minus returns the difference of two times. t is the later one.
func (t posixTime) minus(earlier posixTime) posixTime {
	difference := posixTime{t.seconds - earlier.seconds, t.attos - earlier.attos}
	if difference.attos < 0 {
		difference.seconds--
		difference.attos += attosInSecond
	}
	return difference
}

// plus returns the time so many seconds later.
func (t posixTime) plus(seconds int64) posixTime { return posixTime{t.seconds + seconds, t.attos} }

// skew is receipt minus stamp to the nanosecond, rounded towards zero.
type skew struct {
	negative       bool // A zero is never negative.
	seconds, nanos int64
}

func skewBetween(receipt, stamp posixTime) skew {
	later, earlier := receipt, stamp
	negative := receipt.compare(stamp) < 0
	if negative {
		later, earlier = stamp, receipt
	}
	size := later.minus(earlier)
	s := skew{negative, size.seconds, size.attos / attosInNano}
	s.negative = negative && (s.seconds > 0 || s.nanos > 0)
	return s
}

// parseSkew parses only the form that appendTo writes.
func parseSkew(text []byte) (skew, bool) {
	point := len(text) - 10
	if point < 2 || text[point] != '.' || (text[0] != '+' && text[0] != '-') {
		return skew{}, false
	}
	whole, fraction := text[1:point], text[point+1:]
	seconds, ok := number(whole)
	nanos, alsoOK := number(fraction)
	if !ok || !alsoOK || len(whole) > maxDigits || (len(whole) > 1 && whole[0] == '0') {
		return skew{}, false
	}
	s := skew{text[0] == '-', int64(seconds), int64(nanos)}
	return s, !s.negative || seconds > 0 || nanos > 0
}

// appendTo writes a sign in any case, whole seconds, a point, nine digits.
func (s skew) appendTo(out []byte) []byte {
	sign := '+'
	if s.negative {
		sign = '-'
	}
	return fmt.Appendf(out, "%c%d.%09d", sign, s.seconds, s.nanos)
}

// order is the order of one client's records, before their bytes.
type order struct {
	// epoch is the number of this client's records that were replaced because of a wrong clock.
	epoch            uint32
	effective, stamp posixTime
}

// newOrder finds the effective time: the stamp, or 60 s after the receipt if that is earlier. It
// has no jump, so updates with a clock about a minute ahead are not lost. It returns false if the
// receipt is before 1970. The receipt is computed from the line alone, so every server gets the
// same.
func newOrder(stamp posixTime, s skew) (order, bool) {
	if !s.negative {
		return order{0, stamp, stamp}, true
	}
	receipt := stamp.minus(posixTime{s.seconds, s.nanos * attosInNano})
	if receipt.seconds < 0 {
		return order{}, false
	}
	if latest := receipt.plus(maxLeadSeconds); latest.compare(stamp) < 0 {
		return order{0, latest, stamp}, true
	}
	return order{0, stamp, stamp}, true
}

// lead is 1 if the stamp is more than a minute ahead of now, -1 if it is as far behind, else 0.
func (o order) lead(now posixTime) int {
	switch {
	case o.stamp.compare(now.plus(maxLeadSeconds)) > 0:
		return 1
	case o.stamp.plus(maxLeadSeconds).compare(now) < 0:
		return -1
	}
	return 0
}

// isHeldBackBy says whether known is the later one only because of another server's clock.
func (o order) isHeldBackBy(known order, now posixTime) bool {
	return o.stamp.compare(known.stamp) > 0 || known.effective.compare(now.plus(maxAheadSeconds)) > 0
}

func (o order) compare(other order) int {
	if o.epoch != other.epoch {
		return sign(int64(o.epoch) - int64(other.epoch))
	}
	if c := o.effective.compare(other.effective); c != 0 {
		return c
	}
	return o.stamp.compare(other.stamp)
}
