"""The server on asyncio's streams: a coroutine for each connection, which reads like the conversation that it has.

This is the way in which asyncio is taught: `start_server`, `readuntil`, `write`, `drain`, and aiohttp for
HTTPS. What waits, waits in an `await`; the state of a connection is where its coroutine stands.

Streams have no way to ask whether another line is there already, so each answer is a `write` of its own. The
ten seconds that herd-mio gives a client to finish a line are left out.
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
    """What is done with whoever comes in, and with neighbours that are dialled."""

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
            pass  # the server stops; streams would report it as an error that this task was cancelled
        finally:
            self._herd.clients -= 1
            writer.close()  # what is still to be sent is sent first

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
            pass  # the server stops

    async def dial(self, neighbour: Neighbour) -> None:
        assert neighbour.address
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(*neighbour.address, limit=LINK_LINE_BYTES)
        await Link(self._herd, reader, writer).run(Handshake(self._herd, neighbour))


async def next_line(reader: asyncio.StreamReader) -> bytes | None:
    """A client's next line; None when there will be no more. At the end of input, a line needs no LF."""
    try:
        return without_cr((await reader.readuntil(b"\n"))[:-1])
    except asyncio.IncompleteReadError as end:
        return end.partial or None


async def linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Listens on for a while: closing with unread input would destroy what the client has not read yet (RFC
    9293, 3.6.1).
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
        """From the greeting to the end. Returns after a link that was one, and raises why there was none."""
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
        """The dialler's part: it proves itself first."""
        self._say(handshake.greeting())
        handshake.heard_greeting(await self._hear())
        self._say(handshake.proof())
        handshake.heard_proof(await self._hear())
        self._say(handshake.life())
        return handshake.heard_life(await self._hear())

    async def _be_greeted(self, handshake: Handshake) -> Feed | None:
        """The acceptor's part; an operator is told how the server stands, and nothing else."""
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
            # The first that fails ends the others.
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
        # A neighbour says much at once; so it is read by the buffer and not by the line.
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
        """A neighbour that is silent for too long is lost, whatever TCP believes."""
        loop = asyncio.get_running_loop()
        while (left_s := self._last_heard + SILENCE_S - loop.time()) > 0:
            await asyncio.sleep(left_s)
        self._writer.transport.abort()  # it does not take what waits for it, so nothing is to wait for that
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
        """What did not fit when it was flushed is sent when there is room."""
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
            # Above this mark `drain` waits, so below it there is room.
            if transport.get_write_buffer_size() > high:
                self._is_full.set()
                return
            self._writer.write(self.feed.next_batch())

    def end(self, reason: str) -> None:
        self._reason = reason
        self._say(f"BYE {reason}".encode())
        self._writer.close()  # which ends `_listen`, and with it the rest

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
        # One byte more than the limit is what makes `readuntil` give up: it is the protocol's own limit.
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
