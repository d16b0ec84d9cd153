"""Asks Google Places with aiohttp.

aiohttp keeps connections and uses them again. It also retries once when a kept connection was
closed while idle. This module asks the right question, checks the answer, and always returns some
answer.
"""

import logging
import ssl
import time
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from . import answers
from .server import Question

ORIGIN = "https://maps.googleapis.com"
DEADLINE_S = 10
CONNECTIONS = 16
BODY_BYTES = 2 * 1024 * 1024
KEY_BYTES = 8
"""A shorter key would be found in many good answers by chance. Google's have 39 characters."""

log = logging.getLogger("herd")


class Unanswered(Exception):
    """Why Google gave no answer, as advice for a client."""


class Places:
    def __init__(self, origin: str | None, ca_file: str | None, key: str) -> None:
        self._url = URL(origin or ORIGIN).with_path("/maps/api/place/nearbysearch/json")
        self._key = key
        self._tls = ssl.create_default_context(cafile=ca_file)

    async def __aenter__(self) -> Self:
        # aiohttp would ask for compression by itself. A compressed answer cannot be passed on byte
        # for byte.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=CONNECTIONS, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
            headers={"Accept": "application/json", "User-Agent": "herd-compare"},
            skip_auto_headers=["Accept-Encoding"],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def answer(self, who: str, question: Question) -> bytes:
        """The whole answer to a WHATSAT. It always comes, and within the deadline."""
        place = f"{question.latitude},{question.longitude}"
        began = time.monotonic()
        try:
            status, body = await self._ask(question)
            log.info("places %s: HTTP %d, %d bytes in %.6f s", place, status, len(body), time.monotonic() - began)
            json = self._judged(status, body, question.bound)
        except Unanswered as why:
            log.warning("places %s: %s", place, why)
            json = answers.error(str(why))
        log.info("client %s -> %r and %d bytes of JSON", who, question.line, len(json))
        return question.answered(json.encode())

    async def _ask(self, question: Question) -> tuple[int, bytes]:
        if not self._key:
            raise Unanswered("this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)")
        whole, fraction = divmod(question.radius_nm, 10**9)
        radius = f"{whole}.{fraction:09}".rstrip("0").rstrip(".")
        # yarl would escape the comma, which is valid as it is.
        query = f"location={question.latitude},{question.longitude}&radius={radius}&key={quote(self._key, safe='')}"
        url = URL(f"{self._url}?{query}", encoded=True)
        # The text of aiohttp's errors may contain the URL with the key. So it is not shown.
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                return response.status, await _read(response)
        except TimeoutError:
            raise Unanswered(f"Google Places did not answer within {DEADLINE_S} s; try again later") from None
        except aiohttp.ClientConnectorCertificateError as error:
            reason = str(error.certificate_error)
            raise Unanswered(f"Google Places cannot be reached: its certificate was refused ({reason})") from None
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            raise Unanswered(f"Google Places cannot be reached: {reason}; try again later") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(
                f"Google Places gave no answer that can be used ({type(error).__name__}); try again later"
            ) from None

    def _judged(self, status: int, body: bytes, bound: int) -> str:
        """Accepts Google's text with status 200, and its JSON of an error. A response that contains
        the key is refused.
        """
        if len(self._key) >= KEY_BYTES and self._key.encode() in body:
            raise Unanswered(f"Google Places answered with HTTP status {status}, and something that may not be shown")
        try:
            json = answers.cut(body.decode(), bound)
        except ValueError:
            what = "something that is not JSON" if status == 200 else f"HTTP status {status}"
            raise Unanswered(f"Google Places answered with {what}; try again later") from None
        if status != 200 and not 400 <= status < 600:
            raise Unanswered(f"Google Places answered with HTTP status {status}; try again later")
        return json


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > BODY_BYTES:
            raise Unanswered("Google Places gave no answer that can be used: it was too large; try again later")
    return bytes(body)
