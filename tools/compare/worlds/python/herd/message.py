r"""What a line says: the IAMAT and WHATSAT of clients, and the AT line that answers an IAMAT and crosses the herd.

Lines are bytes and stay bytes: a client may call itself anything but white space. `bytes.split` and the
`\s`, `\S` and `\d` of a bytes pattern know ASCII only, and exactly the six bytes of white space that the
protocol has; those of `str` know Unicode, which would be wrong here.

A float has 53 bits, which hold a time of today to about 200 ns. So times are whole numbers of attoseconds
(10**-18 s): Python's integers have no limit, and a stamp has at most 18 decimals.
"""

import re
import struct
from typing import NamedTuple

LINE_BYTES = 4096
"""The greatest length of a client's line before its LF."""

ATTOSECONDS = 10**18
NANOSECOND = 10**9
"""A nanosecond in attoseconds."""

MAX_LEAD = 60 * ATTOSECONDS
"""A stamp counts as at most this much later than its receipt."""
MAX_EPOCH = 2**32 - 1

# Latitude and longitude, each with its sign and 1 to 3 digits, and within its range.
_LOCATION = rb"""
    ([+-] (?: 0?[0-8]?\d         (?: \.\d+ )? | 0?90 (?: \.0+ )? ))
    ([+-] (?: (?:0?\d?\d|1[0-7]\d) (?: \.\d+ )? | 180  (?: \.0+ )? ))
"""
_TIME = rb"(\d{1,18}) (?: \.(\d{1,18}) )?"

_location = re.compile(_LOCATION, re.VERBOSE).fullmatch
_time = re.compile(_TIME, re.VERBOSE).fullmatch
_radius = re.compile(rb"0*(\d{1,2})(?:\.(\d+))?").fullmatch
_bound = re.compile(rb"0*(\d{1,2})").fullmatch
_at_line = re.compile(
    rb"(?: EPOCH[ ] (?P<epoch>[1-9]\d{0,9}) [ ] )?"
    rb"(?P<line> AT[ ] (?P<server>\S+) [ ]"
    rb"(?P<sign>[+-]) (?P<seconds>0|[1-9]\d{0,17}) \. (?P<nanos>\d{9}) [ ]"
    rb"(?P<client>\S+) [ ]" + _LOCATION + rb"[ ] (?P<stamp>\d{1,18} (?: \.\d{1,18} )?) )",
    re.VERBOSE,
).fullmatch


class Iamat(NamedTuple):
    """The fields of an IAMAT as received, and its time as a number."""

    client: bytes
    location: bytes
    time: bytes
    stamp: int


class Whatsat(NamedTuple):
    """The client of a WHATSAT, the radius in nanometres, and the greatest number of places."""

    client: bytes
    radius_nm: int
    bound: int


def parse(fields: list[bytes]) -> Iamat | Whatsat | None:
    """Parses the fields of a client's line. None if they are no command."""
    match fields:
        case [b"IAMAT", client, location, time]:
            stamp = parse_time(time)
            if stamp is not None and _location(location):
                return Iamat(client, location, time, stamp)
        case [b"WHATSAT", client, radius, bound]:
            radius_nm = parse_radius(radius)
            digits = _bound(bound)
            if radius_nm and digits and 1 <= int(digits[1]) <= 20:
                return Whatsat(client, radius_nm, int(digits[1]))
    return None


def parse_time(text: bytes) -> int | None:
    """Parses plain decimal seconds, and returns attoseconds."""
    found = _time(text)
    if not found:
        return None
    seconds, fraction = found.groups(b"")
    return int(seconds) * ATTOSECONDS + int(fraction.ljust(18, b"0"))


def parse_radius(kilometres: bytes) -> int | None:
    """Parses a radius of more than 0 and at most 50 km, and returns nanometres. A finer radius is
    rounded up, so that none becomes zero.
    """
    found = _radius(kilometres)
    if not found:
        return None
    whole, fraction = found.groups(b"")
    nanometres = int(whole) * 10**12 + int(fraction[:12].ljust(12, b"0")) + bool(fraction[12:].strip(b"0"))
    return nanometres if 0 < nanometres <= 50 * 10**12 else None


def place_of(location: bytes) -> tuple[str, str]:
    """Latitude and longitude for a URL: without plus signs (which stand for spaces there) and
    without leading zeros.
    """
    found = _location(location)
    if not found:
        raise ValueError(location)
    return _plain(found[1]), _plain(found[2])


def _plain(degrees: bytes) -> str:
    whole, point, fraction = degrees[1:].partition(b".")
    sign = "-" if degrees.startswith(b"-") else ""
    return f"{sign}{int(whole)}{(point + fraction).decode()}"


class Record:
    """An AT line, and its order among the records of its client. Of two records the greater one
    wins.

    The epoch decides first, then `order`. Both are total and the same on every server: the order
    comes from the line alone, and the epoch is sent with it. So the order of arrival does not
    matter.
    """

    __slots__ = ("line", "client", "location", "order", "epoch", "teacher", "sequence", "_hash")

    def __init__(
        self,
        line: bytes,
        client: bytes,
        location: bytes,
        effective: int,
        stamp: int,
        epoch: int,
        teacher: object,
    ) -> None:
        self.line = line
        self.client = client
        self.location = location
        self.order = (effective, stamp, line)
        self.epoch = epoch
        """The number of this client's records that were replaced because of a wrong clock."""
        self.teacher = teacher
        """The neighbour, in one life of its process, that sent the record. None for an own client.
        """
        self.sequence = 0
        self._hash: int | None = None

    @property
    def effective(self) -> int:
        return self.order[0]

    @property
    def stamp(self) -> int:
        return self.order[1]

    @property
    def told(self) -> bytes:
        """The line as it crosses a link."""
        return b"EPOCH %d %b" % (self.epoch, self.line) if self.epoch else self.line

    @property
    def hash(self) -> int:
        """A hash of the line, eight bytes at a time, that is the same on every server.

        Only a status needs it, so it is computed when it is first used.
        """
        if self._hash is None:
            value = len(self.line)
            padded = self.line + bytes(-len(self.line) % 8)
            for (word,) in struct.iter_unpack("<Q", padded):
                value = (value ^ word) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
                value ^= value >> 32
            self._hash = value
        return self._hash


def answer(server: bytes, iamat: Iamat, receipt_ns: int) -> Record | None:
    """The record that `server` makes of an IAMAT with this receipt time. None if the receipt is
    before 1970.
    """
    difference = receipt_ns * NANOSECOND - iamat.stamp
    # The result is rounded towards zero, but floor division rounds down. So the sign is removed
    # first.
    skew_ns = abs(difference) // NANOSECOND
    is_ahead = difference < 0 and skew_ns > 0
    effective = effective_time(iamat.stamp, is_ahead, skew_ns)
    if effective is None:
        return None
    seconds, nanos = divmod(skew_ns, 10**9)
    skew = b"%c%d.%09d" % (b"-" if is_ahead else b"+", seconds, nanos)
    line = b"AT %b %b %b %b %b" % (server, skew, iamat.client, iamat.location, iamat.time)
    return Record(line, iamat.client, iamat.location, effective, iamat.stamp, 0, None)


def parse_at(line: bytes, teacher: object) -> Record | None:
    """Parses a neighbour's AT line, perhaps with an epoch before it. None if it is not valid."""
    found = _at_line(line)
    if not found:
        return None
    epoch = int(found["epoch"] or 0)
    stamp = parse_time(found["stamp"])
    skew_ns = int(found["seconds"]) * 10**9 + int(found["nanos"])
    is_ahead = found["sign"] == b"-"
    if stamp is None or (is_ahead and skew_ns == 0) or epoch > MAX_EPOCH:
        return None
    effective = effective_time(stamp, is_ahead, skew_ns)
    if effective is None:
        return None
    client = found["client"]
    location = line[found.end("client") + 1 : found.start("stamp") - 1]
    return Record(found["line"], client, location, effective, stamp, epoch, teacher)


def effective_time(stamp: int, is_ahead: bool, skew_ns: int) -> int | None:
    """The client's stamp, or a minute after the receipt if that is earlier. None if the receipt is
    before 1970.

    So a client whose clock is a year ahead cannot freeze its own record. The value has no jump, so
    updates with a clock about a minute ahead are not lost.
    """
    if not is_ahead:
        return stamp
    receipt = stamp - skew_ns * NANOSECOND
    if receipt < 0:
        return None
    return min(stamp, receipt + MAX_LEAD)
