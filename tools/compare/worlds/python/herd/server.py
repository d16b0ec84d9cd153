"""One server: it answers commands, and floods updates.

This is the part of a server that waits for nothing. Both Python servers call it with a line and get
the answer's bytes. A WHATSAT returns a question instead, which Google has to answer first.
"""

import logging
import time
from typing import NamedTuple

from .message import LINE_BYTES, Iamat, Whatsat, answer, parse, place_of
from .neighbours import Herd
from .records import Records

log = logging.getLogger("herd")


class Question(NamedTuple):
    """A valid WHATSAT: the question for Places, and the line before its answer."""

    line: bytes
    latitude: str
    longitude: str
    radius_nm: int
    bound: int

    def answered(self, json: bytes) -> bytes:
        return self.line + b"\n" + json + b"\n\n"


class Server:
    def __init__(self, herd: Herd) -> None:
        self.herd = herd
        self._name = herd.name.encode()

    @property
    def records(self) -> Records:
        return self.herd.records

    def command(self, who: str, line: bytes) -> bytes | Question:
        """Handles a client's line (without its LF). Returns the answer, which may be empty, or a
        question to ask first.
        """
        fields = line.split()
        if not fields:
            return b""
        # %r escapes everything but printable ASCII, and runs only if the line is logged.
        log.info("client %s <- %r", who, line)
        match parse(fields):
            case Iamat() as iamat:
                now_ns = time.time_ns()
                if record := answer(self._name, iamat, now_ns):
                    if self.records.update(record, now_ns):
                        self.herd.has_changed(record.client)
                    log.info("client %s -> %r", who, record.line)
                    return record.line + b"\n"
            case Whatsat(client, radius_nm, bound):
                if record := self.records.get(client):
                    return Question(record.line, *place_of(record.location), radius_nm, bound)
        return self.quote(who, line)

    def quote(self, who: str, line: bytes) -> bytes:
        """Refuses a line: "? " and a copy of it."""
        log.info("client %s -> ? %r", who, line)
        return b"? " + line + b"\n"

    def too_long(self, who: str, line: bytes) -> bytes:
        """The answer to a line of more than 4,096 bytes. It is the last one that its client gets.
        """
        log.warning("client %s: closing: a line of more than %d bytes", who, LINE_BYTES)
        return self.quote(who, line[:LINE_BYTES])


def without_cr(line: bytes) -> bytes:
    """The form in which a line is quoted: without the CR of a CRLF."""
    return line.removesuffix(b"\r")
