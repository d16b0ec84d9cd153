"""The other servers: the records that each still lacks, the position in each feed, and the
handshake.

The protocol is described in herd-mio's `core::link`. This module handles lines. Other modules send
and receive them.
"""

import logging
import re
import secrets
import time
from typing import Protocol

from .message import LINE_BYTES, parse_at
from .proof import Parties
from .records import Records

VERSION = "2"
"""The version of the neighbours' protocol."""
LINK_LINE_BYTES = LINE_BYTES + 256
"""The greatest length of a line: an IAMAT line, a server's name, a skew, and perhaps an epoch."""
BATCH_BYTES = 64 * 1024
"""The size of one write."""
HEARTBEAT_S = 3.0
CONFIRM_S = 0.2
"""The delay of a KEPT, so that one confirms many batches."""
SILENCE_S = 10.0
PROOF_S = 5.0
CONNECT_S = 3.0
OPERATOR = "operator"
"""The name under which a tool asks for a server's status."""

CLOCK_TOLERANCE_S = 1.0

log = logging.getLogger("herd")

Life = tuple[str, str]
"""A neighbour's name, and the id of one life of its process."""


class Broken(Exception):
    """A link cannot go on, for this reason."""


class Gone(Broken):
    """The peer has ended the link, so it cannot get a reason."""


class Feed:
    """The records that one linked neighbour still lacks: a set of clients, not a queue of lines.

    A record that changes twice before it is sent is sent once. And a slow neighbour never needs
    more memory than the table. A set has no order and needs none, because records have their own
    order.
    """

    def __init__(self, records: Records, life: Life, after: int) -> None:
        self._records = records
        self._life = life
        self._unsaid = set(records.changed_after(after))

    def add(self, client: bytes) -> None:
        self._unsaid.add(client)

    @property
    def unsaid(self) -> int:
        """The number of unsent records."""
        return len(self._unsaid)

    def next_batch(self) -> bytes:
        """The next lines, or nothing if there are none. The last batch ends with a SYNC."""
        lines = []
        size = 0
        while self._unsaid and size < BATCH_BYTES:
            record = self._records.get(self._unsaid.pop())
            # A record is not sent back to its origin.
            if record and record.teacher != self._life:
                line = record.told
                lines.append(line)
                size += len(line) + 1
        if lines and not self._unsaid:
            lines.append(self.sync())
        return b"".join(line + b"\n" for line in lines)

    def sync(self) -> bytes:
        """Says that the neighbour has everything up to the last change. Valid only if no record is
        unsent.
        """
        return b"SYNC %d" % self._records.last_sequence


class Link(Protocol):
    """The methods of a link that a server uses."""

    feed: Feed

    def flush(self) -> None:
        """Writes unsent records, as many as the socket takes."""

    def end(self, reason: str) -> None:
        """Sends BYE and closes."""


class Neighbour:
    """A server with which this one should be linked. This object outlives its connections."""

    def __init__(self, name: str, address: tuple[str, int] | None) -> None:
        self.name = name
        self.address = address
        """The address to dial. None if the neighbour dials."""
        self.link: Link | None = None
        self.boot: str | None = None
        """The id of its latest known life."""
        self.position = 0
        """The received position in the feed of that life."""
        self.confirmed = 0
        """The position that was confirmed to it."""
        self.kept = 0
        """The position in our feed that it has confirmed."""
        self.lacks = 0
        """The number of records that it reports as refused."""
        self._complaint: str | None = None

    @property
    def life(self) -> Life:
        return self.name, self.boot or ""

    def lives(self, boot: str) -> None:
        """A position counts only for the life from which it came."""
        if self.boot != boot:
            self.boot, self.position, self.confirmed = boot, 0, 0

    def confirmation(self) -> bytes:
        """Confirms the received part of its feed. All of it is kept in memory."""
        self.confirmed = self.position
        return b"KEPT %d" % self.position

    def complain(self, reason: str) -> None:
        """Logs why there is no link: once, and not every second."""
        if reason != self._complaint:
            self._complaint = reason
            log.warning("neighbour %s: not linked: %s; trying on", self.name, reason)

    def is_well(self) -> None:
        self._complaint = None


class Herd:
    """This server and its neighbours."""

    def __init__(self, name: str, secret: bytes, records: Records, neighbours: list[Neighbour]) -> None:
        self.name = name
        self.secret = secret
        self.records = records
        self.neighbours = {neighbour.name: neighbour for neighbour in neighbours}
        self.boot = secrets.token_hex(8)
        self.clients = 0
        self._has_news = False

    def linked(self) -> list[Neighbour]:
        return [neighbour for neighbour in self.neighbours.values() if neighbour.link]

    def has_changed(self, client: bytes) -> None:
        """The table took a record, so every neighbour should get it."""
        self._has_news = True
        for neighbour in self.neighbours.values():
            if neighbour.link:
                neighbour.link.feed.add(client)

    def flood(self) -> None:
        """Sends the changes over all links. Called before a client gets its answer, so that
        neighbours get the update first.
        """
        if self._has_news:
            self._has_news = False
            for neighbour in self.neighbours.values():
                if neighbour.link:
                    neighbour.link.flush()

    def has_linked(self, neighbour: Neighbour, link: Link) -> None:
        """A neighbour that proves itself again has lost the old connection, so the old link ends.
        """
        old, neighbour.link = neighbour.link, link
        neighbour.is_well()
        log.info("neighbour %s: linked, to be told %d records", neighbour.name, link.feed.unsaid)
        if old:
            old.end("a newer connection took its place")

    def has_lost(self, neighbour: Neighbour, link: Link, reason: str) -> None:
        if neighbour.link is link:
            neighbour.link = None
            log.warning("neighbour %s: lost: %s", neighbour.name, reason)

    def heard(self, neighbour: Neighbour, line: bytes) -> None:
        """Handles a line of a linked neighbour."""
        if len(line) > LINK_LINE_BYTES:
            raise Broken(f"a line of more than {LINK_LINE_BYTES} bytes")
        if line.startswith((b"AT ", b"EPOCH ")):
            record = parse_at(line, neighbour.life)
            if not record:
                raise Broken(f"not an AT line: {shown(line)}")
            if self.records.offer(record):
                self.has_changed(record.client)
        elif found := _notice(line):
            verb, number = found[1], int(found[2])
            if verb == b"SYNC":
                neighbour.position = number
            elif verb == b"KEPT":
                neighbour.kept = number
            elif verb == b"LACKS" and neighbour.lacks != number:
                neighbour.lacks = number
                log.warning("neighbour %s: records that it had to refuse: %d", neighbour.name, number)
        else:
            raise goodbye_or_nonsense(line)

    def status(self) -> bytes:
        """The server's status, for an operator."""
        records = self.records
        line = (
            f"STATUS boot={self.boot} wall={time.time_ns()} records={len(records)} digest={records.digest():016x}"
            f" clients={self.clients} stale={records.stale} refused=0 ahead={records.ahead} behind={records.behind}"
        )
        for neighbour in self.linked():
            unconfirmed = max(records.last_sequence - neighbour.kept, 0)
            line += f" link={unconfirmed}:?:{neighbour.lacks}:{neighbour.name}"
        return line.encode()


_herd = re.compile(rb"HERD (\S+) (\S+) (\S+) (\S+)").fullmatch
_nonce = re.compile(r"[0-9a-fA-F]{32}").fullmatch
_proof = re.compile(rb"PROOF ([0-9a-fA-F]{64})").fullmatch
_life = re.compile(rb"LIFE ([0-9a-fA-F]{16}) (\d{1,20}) (\S+) (\d{1,20})").fullmatch
_notice = re.compile(rb"(SYNC|KEPT|LACKS|CLOCK) (\d{1,20})").fullmatch


def shown(line: bytes) -> str:
    """The beginning of a peer's line, escaped for the log and for a BYE."""
    return repr(line[:100])[2:-1]


def goodbye_or_nonsense(line: bytes) -> Broken:
    """The reason for which an unexpected line ends a link."""
    if line == b"BYE" or line.startswith(b"BYE "):
        return Gone(f"it said goodbye: {shown(line[4:])}")
    return Broken(f"not the neighbours' protocol: {shown(line)}")


class Handshake:
    """The first lines of a link, and the checks of them.

    The dialler sends the first line, and proves itself first. So an unproven peer that dials gets
    nothing that was made with the secret.
    """

    def __init__(self, herd: Herd, neighbour: Neighbour | None) -> None:
        """For the neighbour that was dialled, or None for a peer that dialled this server."""
        self._herd = herd
        self.neighbour = neighbour
        self._side, self._other_side = ("dialler", "acceptor") if neighbour else ("acceptor", "dialler")
        self._other_name = neighbour.name if neighbour else ""
        self._nonce = secrets.token_hex(16)
        self._other_nonce = ""

    @property
    def is_operator(self) -> bool:
        return self._other_name == OPERATOR

    def greeting(self) -> bytes:
        return f"HERD {VERSION} {self._herd.name} {self._other_name} {self._nonce}".encode()

    def heard_greeting(self, line: bytes) -> None:
        found = _herd(line)
        if not found:
            raise goodbye_or_nonsense(line)
        version, name, wanted, nonce = (word.decode("ascii", "backslashreplace") for word in found.groups())
        if version != VERSION:
            raise Broken(
                f"it speaks version {version} of the neighbours' protocol, this server {VERSION}; upgrade the older one"
            )
        if wanted != self._herd.name:
            raise Broken(f"it looks for {wanted}, this is {self._herd.name}")
        if not _nonce(nonce):
            raise Broken("a nonce that is not 32 hexadecimal digits")
        if self.neighbour:
            if name != self.neighbour.name:
                raise Broken(f"{name} answered instead")
        elif name != OPERATOR:
            self.neighbour = self._herd.neighbours.get(name)
            if not self.neighbour:
                raise Broken(f"{name} is not linked with {self._herd.name}")
            if self.neighbour.address:
                raise Broken(f"it is {self._herd.name} that dials {name}")
        self._other_name = name
        self._other_nonce = nonce.lower()

    def _parties(self) -> Parties:
        names, nonces = (self._herd.name, self._other_name), (self._nonce, self._other_nonce)
        if self._side == "acceptor":
            names, nonces = names[::-1], nonces[::-1]
        return Parties(*names, *nonces)

    def proof(self) -> bytes:
        return f"PROOF {self._parties().proof(self._herd.secret, self._side)}".encode()

    def heard_proof(self, line: bytes) -> None:
        found = _proof(line)
        if not found:
            raise goodbye_or_nonsense(line)
        if not self._parties().is_proven(self._herd.secret, self._other_side, found[1].decode()):
            raise Broken("a wrong proof: do both servers have the same herd secret?")

    def life(self) -> bytes:
        """The LIFE line: this server's life and clock, and its position in the neighbour's feed."""
        neighbour = self.neighbour
        known = "- 0"
        if neighbour and neighbour.boot:
            known = f"{neighbour.boot} {neighbour.position}"
            neighbour.confirmed = neighbour.position
        return f"LIFE {self._herd.boot} {time.time_ns()} {known}".encode()

    def heard_life(self, line: bytes) -> Feed:
        """The records that the neighbour lacks: all, or those that changed since the last link."""
        found = _life(line)
        if not found or not self.neighbour:
            raise goodbye_or_nonsense(line)
        boot, wall, our_boot, position = (word.decode("ascii", "backslashreplace") for word in found.groups())
        self.neighbour.lives(boot)
        apart_s = (int(wall) - time.time_ns()) / 1e9
        if abs(apart_s) > CLOCK_TOLERANCE_S:
            log.warning(
                "neighbour %s: its clock is %.0f s ahead of ours; both should follow a time server",
                self.neighbour.name,
                apart_s,
            )
        records = self._herd.records
        knows_us = our_boot == self._herd.boot and int(position) <= records.last_sequence
        self.neighbour.kept = int(position) if knows_us else 0
        self.neighbour.lacks = 0
        return Feed(records, self.neighbour.life, self.neighbour.kept)
