"""The server on asyncio's protocols and transports. They are callbacks, as in the loop itself,
without streams.

    connection_made ──► data_received … ──► eof_received ──► connection_lost

A coroutine's state is the `await` where it stands. Here attributes hold it: the waiting lines, a
running question to Places, the next expected line of a link. In return, one `write` sends the
answers to all lines of one read, and only the answer is created for a line. With `--loop uvloop`
the same protocols run on libuv's loop.

Places is still asked through aiohttp. The comparison is about clients and neighbours, and aiohttp
is itself an HTTP client made of protocols. herd-mio's time limit of ten seconds for a line is left
out.
"""

import asyncio
import logging
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

from herd import logs, options
from herd.dialling import keep_dialling
from herd.message import LINE_BYTES
from herd.neighbours import (
    CONFIRM_S,
    CONNECT_S,
    HEARTBEAT_S,
    LINK_LINE_BYTES,
    PROOF_S,
    SILENCE_S,
    Broken,
    Feed,
    Gone,
    Handshake,
    Herd,
    Neighbour,
)
from herd.places import Places
from herd.server import Question, Server, without_cr

BACKLOG = 4096
LINGER_S = 2.0

log = logging.getLogger("herd")


class Client(asyncio.Protocol):
    """A client's connection.

    Commands run while there are lines, unless one waits for Places or the client does not read its
    answers. `_choose_reading` derives from that whether the socket is read.
    """

    def __init__(self, server: Server, places: Places) -> None:
        self._server = server
        self._places = places
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._call: asyncio.Task[None] | None = None
        self._is_full = False
        self._has_ended = False
        self._is_lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._who = options.shown(transport.get_extra_info("peername"))
        self._server.herd.clients += 1

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines.extend(lines)
        self._run()

    def eof_received(self) -> bool:
        self._has_ended = True
        if self._is_lingering:
            return False
        self._run()
        return True  # The transport must stay open, because answers may follow.

    def pause_writing(self) -> None:
        self._is_full = True
        self._choose_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._choose_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.herd.clients -= 1
        self._is_lingering = True
        if self._call:
            self._call.cancel()

    def _run(self) -> None:
        """Runs the commands that are there, up to one that has to wait for Places."""
        answers = []
        question = None
        while question is None and (line := self._next_line()) is not None:
            if len(line) > LINE_BYTES:
                answers.append(self._give_up(line))
                break
            answer = self._server.command(self._who, line)
            if isinstance(answer, Question):
                question = answer
            else:
                answers.append(answer)
        self._server.herd.flood()
        self._transport.write(b"".join(answers))
        if question:
            self._call = asyncio.get_running_loop().create_task(self._ask(question))
        elif self._is_lingering:
            self._linger()
        elif self._has_ended:
            self._transport.close()  # The transport first sends the rest of its output.
        self._choose_reading()

    def _next_line(self) -> bytes | None:
        """The next line, if it is complete or already too long. At the end of input, a line needs
        no LF.
        """
        if self._lines:
            line = self._lines.popleft()
            return line if len(line) > LINE_BYTES else without_cr(line)
        if len(self._rest) > LINE_BYTES or (self._has_ended and self._rest):
            line, self._rest = self._rest, b""
            return line
        return None

    async def _ask(self, question: Question) -> None:
        answer = await self._places.answer(self._who, question)
        self._call = None
        self._transport.write(answer)
        self._run()

    def _give_up(self, line: bytes) -> bytes:
        self._is_lingering = True
        self._lines.clear()
        self._rest = b""
        return self._server.too_long(self._who, line)

    def _linger(self) -> None:
        """Reads on for a while. A close with unread input would reset the connection, and the
        client could lose its answers (RFC 9293, 3.6.1).
        """
        if self._has_ended:
            self._transport.close()
        else:
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    def _choose_reading(self) -> None:
        wants_to_read = self._is_lingering or not (self._call or self._is_full or self._has_ended)
        if self._transport.is_closing():
            return
        if wants_to_read and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not wants_to_read and self._transport.is_reading():
            self._transport.pause_reading()


class Link(asyncio.Protocol):
    """One connection between two servers.

    The state is the method that gets the next line:

        dialler    _greeted ──► _proven ──────────────► _started ──► _linked
        acceptor   _greeted ──► _proven (operator: end) ► _started ──► _linked
    """

    feed: Feed

    def __init__(self, herd: Herd, neighbour: Neighbour | None) -> None:
        """For the neighbour that is dialled, or None for a peer that dialled this server."""
        self._herd = herd
        self._handshake = Handshake(herd, neighbour)
        self._is_dialler = neighbour is not None
        self._state: Callable[[bytes], None] = self._greeted
        self._rest = b""
        self._is_full = False
        self._reason = "it closed the connection"
        self._loop = asyncio.get_running_loop()
        self._last_heard = self._loop.time()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.lost: asyncio.Future[str | None] = self._loop.create_future()
        """Done when the connection has ended. The result is the reason, if it never was a link."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._who = options.shown(transport.get_extra_info("peername"))
        self._timers["proof"] = self._loop.call_later(
            PROOF_S, self.end, f"it did not prove who it is within {PROOF_S:.0f} s"
        )
        if self._is_dialler:
            self._say(self._handshake.greeting())

    def data_received(self, data: bytes) -> None:
        self._last_heard = self._loop.time()
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            for line in lines:
                if self._transport.is_closing():
                    break
                self._state(line)
            if len(self._rest) > LINK_LINE_BYTES:
                raise Broken(f"a line of more than {LINK_LINE_BYTES} bytes")
        except Gone as why:
            self._reason = str(why)
            self._transport.close()
        except Broken as why:
            self.end(str(why))
        self._herd.flood()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        reason = str(error) if error else self._reason
        for timer in self._timers.values():
            timer.cancel()
        if self._state == self._linked and self._handshake.neighbour:
            self._herd.has_lost(self._handshake.neighbour, self, reason)
        elif not (self._is_dialler or self._handshake.is_operator):
            log.warning("stranger %s: refused: %s", self._who, reason)
        if not self.lost.done():
            self.lost.set_result(None if self._state == self._linked else reason)

    def _greeted(self, line: bytes) -> None:
        self._handshake.heard_greeting(line)
        self._say(self._handshake.proof() if self._is_dialler else self._handshake.greeting())
        self._state = self._proven

    def _proven(self, line: bytes) -> None:
        self._handshake.heard_proof(line)
        if not self._is_dialler:
            self._say(self._handshake.proof())
        if self._handshake.is_operator:
            self._say(self._herd.status())
            self._transport.close()
            return
        self._say(self._handshake.life())
        self._state = self._started

    def _started(self, line: bytes) -> None:
        self.feed = self._handshake.heard_life(line)
        assert self._handshake.neighbour
        self._state = self._linked
        self._timers.pop("proof").cancel()
        self._watch()
        self._beat()
        self._herd.has_linked(self._handshake.neighbour, self)
        self.flush()

    def _linked(self, line: bytes) -> None:
        neighbour = self._handshake.neighbour
        assert neighbour
        self._herd.heard(neighbour, line)
        if neighbour.position > neighbour.confirmed and "confirm" not in self._timers:
            self._timers["confirm"] = self._loop.call_later(CONFIRM_S, self._confirm)

    def flush(self) -> None:
        while self._state == self._linked and self.feed.unsaid and not (self._is_full or self._transport.is_closing()):
            self._transport.write(self.feed.next_batch())

    def end(self, reason: str) -> None:
        self._reason = reason
        self._say(f"BYE {reason}".encode())
        self._transport.close()

    def _watch(self) -> None:
        """Closes the link after too long a silence, even if TCP still considers it open."""
        left_s = self._last_heard + SILENCE_S - self._loop.time()
        if left_s <= 0:
            self._reason = f"nothing heard for {SILENCE_S:.0f} s"
            self._transport.abort()  # drops output that the neighbour does not read
        else:
            self._timers["watch"] = self._loop.call_later(left_s, self._watch)

    def _beat(self) -> None:
        self._timers["beat"] = self._loop.call_later(HEARTBEAT_S, self._beat)
        if not self.feed.unsaid:
            self._say(self.feed.sync())

    def _confirm(self) -> None:
        del self._timers["confirm"]
        assert self._handshake.neighbour
        self._say(self._handshake.neighbour.confirmation())

    def _say(self, line: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(line + b"\n")


async def dial(herd: Herd, neighbour: Neighbour) -> None:
    """Makes a link, and waits for its end."""
    assert neighbour.address
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_S):
        _, link = await loop.create_connection(lambda: Link(herd, neighbour), *neighbour.address)
    if reason := await link.lost:
        raise Broken(reason)


async def serve(said: options.Options) -> None:
    """Runs until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    herd = said.herd()
    server = Server(herd)
    async with Places(said.places_url, said.places_ca, said.places_key) as places:
        clients = await loop.create_server(lambda: Client(server, places), *said.listen, backlog=BACKLOG)
        peers = await loop.create_server(lambda: Link(herd, None), *said.listen_peers)
        dialling = [
            loop.create_task(keep_dialling(neighbour, lambda neighbour: dial(herd, neighbour)))
            for neighbour in said.neighbours
            if neighbour.address
        ]
        where = [options.shown(door.sockets[0].getsockname()) for door in (clients, peers)]
        world = "uvloop" if said.loop == "uvloop" else "protocols"
        print(f"herd-{world} {said.name}: clients on {where[0]}, neighbours on {where[1]}", flush=True)
        await stop.wait()
        clients.close()
        peers.close()
        for task in dialling:
            task.cancel()
        for neighbour in herd.linked():
            if neighbour.link:
                neighbour.link.end("stopping")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop is imported only on request, so asyncio's own loop works without it."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def main() -> int:
    said = options.parse("protocols.py", "A server of the herd on asyncio's protocols.", ("asyncio", "uvloop"))
    options.allow_many_connections()
    try:
        log_writer = logs.start(said.log_file, said.log_level)
    except OSError as error:
        print(
            f"protocols.py: cannot write the log {said.log_file}: {error}; choose another place with --log-file",
            file=sys.stderr,
        )
        return 2
    try:
        with asyncio.Runner(loop_factory=loop_factory(said.loop)) as runner:
            runner.run(serve(said))
    except OSError as error:
        print(f"protocols.py: {error}", file=sys.stderr)
        return 1
    finally:
        log_writer.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
