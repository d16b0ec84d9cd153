package main

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	metreNm     = 1_000_000_000
	kmNm        = 1000 * metreNm
	maxRadiusKm = 50
)

// iamat is IAMAT <client> <location> <time>.
type iamat struct {
	client, location, time []byte
	stamp                  posixTime
}

// whatsat is WHATSAT <client> <radius km> <bound>.
type whatsat struct {
	client   []byte
	radiusNm uint64
	bound    int
}

// parseCommand parses a client's line. It returns an iamat, a whatsat, or neither. A blank line
// gets no answer.
func parseCommand(line []byte) (i *iamat, w *whatsat, isBlank bool) {
	words := fields(line)
	if len(words) == 0 {
		return nil, nil, true
	}
	if len(words) != 4 {
		return nil, nil, false
	}
	switch string(words[0]) {
	case "IAMAT":
		stamp, ok := parseTime(words[3])
		if _, _, isPlace := parseLocation(words[2]); ok && isPlace {
			return &iamat{words[1], words[2], words[3], stamp}, nil, false
		}
	case "WHATSAT":
		radiusNm, ok := parseRadius(words[2])
		bound, isNumber := number(words[3])
		if ok && isNumber && 1 <= bound && bound <= 20 {
			return nil, &whatsat{words[1], radiusNm, int(bound)}, false
		}
	}
	return nil, nil, false
}

// parseRadius parses kilometres, 0 < r ≤ 50, and returns nanometres. A finer radius is rounded up,
// so none becomes zero.
func parseRadius(kilometres []byte) (nanometres uint64, ok bool) {
	whole, fraction, hasPoint := bytes.Cut(kilometres, []byte("."))
	km, ok := number(whole)
	if !ok || km > maxRadiusKm || (hasPoint && !allDigits(fraction)) {
		return 0, false
	}
	nanometres = km * kmNm
	unit := uint64(kmNm)
	for i, digit := range fraction {
		if unit == 1 {
			if !allZeros(fraction[i:]) {
				nanometres++
			}
			break
		}
		unit /= 10
		nanometres += uint64(digit-'0') * unit
	}
	return nanometres, 0 < nanometres && nanometres <= maxRadiusKm*kmNm
}

// metres returns a radius as a plain decimal number.
func metres(nanometres uint64) string {
	text := fmt.Sprintf("%d.%09d", nanometres/metreNm, nanometres%metreNm)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// parseLocation parses ISO 6709 decimal degrees: twice [+-], 1–3 digits, and optionally a point and
// digits. The latitude is within ±90, the longitude within ±180. The digits stay text, so nothing
// is rounded on the way to Google.
func parseLocation(text []byte) (latitude, longitude []byte, ok bool) {
	if len(text) == 0 {
		return nil, nil, false
	}
	second := 1 + bytes.IndexAny(text[1:], "+-")
	if second == 0 {
		return nil, nil, false
	}
	latitude, longitude = text[:second], text[second:]
	return latitude, longitude, within(latitude, 90) && within(longitude, 180)
}

// within says whether text is a signed decimal of 1–3 whole digits and at most limit in size.
func within(text []byte, limit uint64) bool {
	if len(text) == 0 || (text[0] != '+' && text[0] != '-') {
		return false
	}
	whole, fraction, hasPoint := bytes.Cut(text[1:], []byte("."))
	degrees, ok := number(whole)
	if !ok || len(whole) > 3 || (hasPoint && !allDigits(fraction)) {
		return false
	}
	return degrees < limit || (degrees == limit && allZeros(fraction))
}

// plain returns a coordinate for a URL: without a plus sign and without leading zeros.
func plain(coordinate []byte) string {
	sign, size := coordinate[0], string(coordinate[1:])
	size = strings.TrimLeft(size, "0")
	if size == "" || size[0] == '.' {
		size = "0" + size
	}
	if sign == '-' {
		return "-" + size
	}
	return size
}

// at is a parsed AT line. Servers store and send the line itself, byte for byte.
type at struct {
	client, location []byte
	order            order
}

// parseTold parses an AT line as it crosses a link: after EPOCH <n>, unless the epoch is 0.
func parseTold(told []byte) (line []byte, a at, ok bool) {
	line = told
	epoch := uint64(0)
	if prefix := []byte("EPOCH "); bytes.HasPrefix(told, prefix) {
		var digits []byte
		digits, line, _ = bytes.Cut(told[len(prefix):], []byte(" "))
		epoch, ok = number(digits)
		if !ok || digits[0] == '0' || epoch > maxEpoch {
			return nil, at{}, false
		}
	}
	a, ok = parseAt(line)
	a.order.epoch = uint32(epoch)
	return line, a, ok
}

// parseAt parses AT <server> <skew> <client> <location> <time> with single spaces, and nothing
// before or after it.
func parseAt(line []byte) (at, bool) {
	words := bytes.Split(line, []byte(" "))
	if len(words) != 6 || string(words[0]) != "AT" || !isName(words[1]) || !isName(words[3]) {
		return at{}, false
	}
	skew, ok := parseSkew(words[2])
	_, _, isPlace := parseLocation(words[4])
	stamp, isTime := parseTime(words[5])
	if !ok || !isPlace || !isTime {
		return at{}, false
	}
	order, ok := newOrder(stamp, skew)
	return at{words[3], words[4], order}, ok
}

// isName says whether a field is a valid name: not empty, without white space.
func isName(field []byte) bool {
	for _, b := range field {
		if isSpace(b) {
			return false
		}
	}
	return len(field) > 0
}
