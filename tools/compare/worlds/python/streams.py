"""The server on asyncio's streams: a coroutine for each connection, which reads like a
conversation.

This is the way in which asyncio is taught: `start_server`, `readuntil`, `write`, `drain`, and
aiohttp for HTTPS. All waits are `await`s, and a connection's state is the place where its coroutine
stands.

Streams cannot tell whether another line has already arrived, so each answer is its own `write`.
herd-mio's time limit of ten seconds for a line is left out.
"""

import asyncio
import contextlib
import logging
import signal
import sys

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
READ_BYTES = 64 * 1024

log = logging.getLogger("herd")


class Doors:
    """The handlers for accepted connections, and for neighbours to dial."""

    def __init__(self, herd: Herd, places: Places) -> None:
        self._herd = herd
        self._server = Server(herd)
        self._places = places

    async def client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._herd.clients += 1
        try:
            await self._converse(reader, writer)
        except OSError as error:
            log.debug("client gone: %s", error)
        except asyncio.CancelledError:
            pass  # the server stops; streams would log the cancelled task as an error
        finally:
            self._herd.clients -= 1
            writer.close()  # The transport first sends the rest of its output.

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        who = options.shown(writer.get_extra_info("peername"))
        try:
            while (line := await next_line(reader)) is not None:
                answer = self._server.command(who, line)
                self._herd.flood()
                if isinstance(answer, Question):
                    answer = await self._places.answer(who, answer)
                writer.write(answer)
                await writer.drain()  # a client that does not read its answers is not read either
        except asyncio.LimitOverrunError:
            writer.write(self._server.too_long(who, await reader.readexactly(LINE_BYTES)))
            await linger(reader, writer)

    async def neighbour_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = Handshake(self._herd, None)
        try:
            await Link(self._herd, reader, writer).run(handshake)
        except (OSError, Broken) as why:
            log.warning("stranger %s: refused: %s", options.shown(writer.get_extra_info("peername")), why)
        except asyncio.CancelledError:
            pass  # The server stops.

    async def dial(self, neighbour: Neighbour) -> None:
        assert neighbour.address
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(*neighbour.address, limit=LINK_LINE_BYTES)
        await Link(self._herd, reader, writer).run(Handshake(self._herd, neighbour))


async def next_line(reader: asyncio.StreamReader) -> bytes | None:
    """A client's next line, or None at the end. At the end of input, a line needs no LF."""
    try:
        return without_cr((await reader.readuntil(b"\n"))[:-1])
    except asyncio.IncompleteReadError as end:
        return end.partial or None


async def linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads on for a while. A close with unread input would reset the connection, and the client
    could lose its answers (RFC 9293, 3.6.1).
    """
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(READ_BYTES):
                pass


class Link:
    """One connection between two servers."""

    feed: Feed

    def __init__(self, herd: Herd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._herd = herd
        self._reader = reader
        self._writer = writer
        self._is_full = asyncio.Event()
        self._is_unconfirmed = asyncio.Event()
        self._last_heard = 0.0
        self._reason = "it closed the connection"

    async def run(self, handshake: Handshake) -> None:
        """Runs a connection from the greeting to the end. Raises the reason if it never became a
        link.
        """
        try:
            async with asyncio.timeout(PROOF_S):
                feed = await (self._greet(handshake) if handshake.neighbour else self._be_greeted(handshake))
            if feed and handshake.neighbour:
                self.feed = feed
                await self._stay_linked(handshake.neighbour)
        except Broken as why:
            if not isinstance(why, Gone):
                self._say(f"BYE {why}".encode())
            raise
        except TimeoutError:
            raise Broken(f"it did not prove who it is within {PROOF_S:.0f} s") from None
        finally:
            self._writer.close()

    async def _greet(self, handshake: Handshake) -> Feed:
        """The dialler's part. The dialler proves itself first."""
        self._say(handshake.greeting())
        handshake.heard_greeting(await self._hear())
        self._say(handshake.proof())
        handshake.heard_proof(await self._hear())
        self._say(handshake.life())
        return handshake.heard_life(await self._hear())

    async def _be_greeted(self, handshake: Handshake) -> Feed | None:
        """The acceptor's part. An operator gets only the server's status."""
        handshake.heard_greeting(await self._hear())
        self._say(handshake.greeting())
        handshake.heard_proof(await self._hear())
        self._say(handshake.proof())
        if handshake.is_operator:
            self._say(self._herd.status())
            return None
        self._say(handshake.life())
        return handshake.heard_life(await self._hear())

    async def _stay_linked(self, neighbour: Neighbour) -> None:
        self._herd.has_linked(neighbour, self)
        self._last_heard = asyncio.get_running_loop().time()
        reason = "closed"
        try:
            self.flush()
            # The first task that fails ends the others.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(neighbour))
                tasks.create_task(self._watch())
                tasks.create_task(self._beat())
                tasks.create_task(self._confirm(neighbour))
                tasks.create_task(self._send())
        except* (Broken, OSError) as group:
            reason = str(group.exceptions[0])
            if not group.subgroup(Gone):
                self._say(f"BYE {reason}".encode())
        finally:
            self._herd.has_lost(neighbour, self, reason)

    async def _listen(self, neighbour: Neighbour) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        # A neighbour sends many lines at once, so whole buffers are read instead of single lines.
        while data := await self._reader.read(READ_BYTES):
            self._last_heard = loop.time()
            *lines, rest = (rest + data).split(b"\n")
            try:
                for line in lines:
                    self._herd.heard(neighbour, line)
            finally:
                self._herd.flood()
                if neighbour.position > neighbour.confirmed:
                    self._is_unconfirmed.set()
            if len(rest) > LINK_LINE_BYTES:
                raise Broken(f"a line of more than {LINK_LINE_BYTES} bytes")
        raise Gone(self._reason)

    async def _watch(self) -> None:
        """Closes the link after too long a silence, even if TCP still considers it open."""
        loop = asyncio.get_running_loop()
        while (left_s := self._last_heard + SILENCE_S - loop.time()) > 0:
            await asyncio.sleep(left_s)
        self._writer.transport.abort()  # drops output that the neighbour does not read
        raise Gone(f"nothing heard for {SILENCE_S:.0f} s")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.feed.unsaid:
                self._say(self.feed.sync())

    async def _confirm(self, neighbour: Neighbour) -> None:
        while True:
            await self._is_unconfirmed.wait()
            await asyncio.sleep(CONFIRM_S)
            self._is_unconfirmed.clear()
            self._say(neighbour.confirmation())

    async def _send(self) -> None:
        """Sends the rest of the records when the socket has room again."""
        while True:
            await self._is_full.wait()
            self._is_full.clear()
            await self._writer.drain()
            self.flush()

    def flush(self) -> None:
        transport = self._writer.transport
        _, high = transport.get_write_buffer_limits()
        while self.feed.unsaid:
            if transport.is_closing():
                return
            # `drain` waits above this mark. Below it there is room.
            if transport.get_write_buffer_size() > high:
                self._is_full.set()
                return
            self._writer.write(self.feed.next_batch())

    def end(self, reason: str) -> None:
        self._reason = reason
        self._say(f"BYE {reason}".encode())
        self._writer.close()  # This ends `_listen`, which ends the other tasks.

    def _say(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line + b"\n")

    async def _hear(self) -> bytes:
        try:
            return (await self._reader.readuntil(b"\n"))[:-1]
        except asyncio.IncompleteReadError:
            raise Gone("it closed the connection") from None
        except asyncio.LimitOverrunError:
            raise Broken(f"a line of more than {LINK_LINE_BYTES} bytes") from None


async def serve(said: options.Options) -> None:
    """Runs until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    herd = said.herd()
    async with Places(said.places_url, said.places_ca, said.places_key) as places:
        doors = Doors(herd, places)
        # `readuntil` gives up at one byte above the limit, which is the protocol's own limit.
        clients = await asyncio.start_server(doors.client_connected, *said.listen, limit=LINE_BYTES, backlog=BACKLOG)
        peers = await asyncio.start_server(doors.neighbour_connected, *said.listen_peers, limit=LINK_LINE_BYTES)
        dialling = [
            asyncio.create_task(keep_dialling(neighbour, doors.dial))
            for neighbour in said.neighbours
            if neighbour.address
        ]
        where = [options.shown(door.sockets[0].getsockname()) for door in (clients, peers)]
        print(f"herd-streams {said.name}: clients on {where[0]}, neighbours on {where[1]}", flush=True)
        await stop.wait()
        clients.close()
        peers.close()
        for task in dialling:
            task.cancel()
        for neighbour in herd.linked():
            if neighbour.link:
                neighbour.link.end("stopping")


def main() -> int:
    said = options.parse("streams.py", "A server of the herd on asyncio's streams.")
    options.allow_many_connections()
    try:
        log_writer = logs.start(said.log_file, said.log_level)
    except OSError as error:
        print(
            f"streams.py: cannot write the log {said.log_file}: {error}; choose another place with --log-file",
            file=sys.stderr,
        )
        return 2
    try:
        asyncio.run(serve(said))
    except OSError as error:
        print(f"streams.py: {error}", file=sys.stderr)
        return 1
    finally:
        log_writer.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
