"""The command line, which is the same for the servers of all worlds, and the system's limits."""

import argparse
import os
import resource
from typing import NamedTuple, NoReturn

from .neighbours import Herd, Neighbour
from .records import Records

Address = tuple[str, int]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Reports a mistake in one line instead of two paragraphs."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class Options(NamedTuple):
    """The values from the command line and the environment."""

    name: str
    listen: Address
    listen_peers: Address
    neighbours: list[Neighbour]
    places_url: str | None
    places_ca: str | None
    places_key: str
    log_file: str
    log_level: str
    secret: bytes
    loop: str

    def herd(self) -> Herd:
        return Herd(self.name, self.secret, Records(), self.neighbours)


def parse(program: str, about: str, loops: tuple[str, ...] = ("asyncio",)) -> Options:
    parser = _Parser(
        prog=program,
        description=about,
        epilog="The environment has HERD_SECRET and HERD_PLACES_KEY, which no process listing shows.",
    )
    parser.add_argument("name", metavar="NAME", help="which server of the herd this is")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        required=True,
        help="where clients connect; port 0 lets the system choose",
    )
    parser.add_argument(
        "--listen-peers", metavar="HOST:PORT", type=_address, required=True, help="where neighbours connect"
    )
    parser.add_argument(
        "--dial",
        metavar="NAME=HOST:PORT",
        type=_dialled,
        action="append",
        default=[],
        help="a neighbour that this server dials",
    )
    parser.add_argument(
        "--accept",
        metavar="NAME",
        type=_accepted,
        action="append",
        default=[],
        help="a neighbour that dials this server",
    )
    parser.add_argument("--places-url", metavar="URL", type=_origin, help="whom to ask for places [default: Google]")
    parser.add_argument("--places-ca", metavar="FILE", help="trust this certificate authority for it, and no other")
    parser.add_argument("--log-file", metavar="FILE", required=True, help="where the log goes")
    parser.add_argument("--log-level", choices=["info", "warn"], default="info", help="how much is logged")
    if len(loops) > 1:
        parser.add_argument("--loop", choices=loops, default=loops[0], help="which event loop runs it")
    said = parser.parse_args()
    neighbours: list[Neighbour] = said.dial + said.accept
    if len({neighbour.name for neighbour in neighbours} | {said.name}) != len(neighbours) + 1:
        parser.error("a neighbour is named twice, or is this server itself")
    return Options(
        name=said.name,
        listen=said.listen,
        listen_peers=said.listen_peers,
        neighbours=neighbours,
        places_url=said.places_url,
        places_ca=said.places_ca,
        places_key=os.environ.get("HERD_PLACES_KEY", "").strip(),
        log_file=said.log_file,
        log_level=said.log_level,
        secret=os.environb.get(b"HERD_SECRET", b"").strip(),
        loop=getattr(said, "loop", "asyncio"),
    )


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _dialled(text: str) -> Neighbour:
    name, equals, address = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=HOST:PORT")
    return Neighbour(name, _address(address))


def _accepted(name: str) -> Neighbour:
    return Neighbour(name, None)


def _origin(url: str) -> str:
    if not url.startswith("https://"):
        raise argparse.ArgumentTypeError(f"{url!r} does not begin with https://")
    return url


def shown(address: tuple[str, int] | None) -> str:
    """An address in the form of the command line. A peer that has already disconnected has none."""
    if address is None:
        return "nowhere"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_many_connections() -> None:
    """Raises the limit of open files above the usual 1,024 to the system's hard limit. Most other
    worlds do this by themselves.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
