"""The proof with which both ends of a link show that they know the herd's secret, without sending
it.

The proof is an HMAC over both names and both nonces, so an old proof is invalid. It also covers the
speaker's side, so a reflected proof is invalid too.
"""

import hmac
from typing import NamedTuple


class Parties(NamedTuple):
    """The names of both ends, and their nonces in hexadecimal digits."""

    dialler: str
    acceptor: str
    dialler_nonce: str
    acceptor_nonce: str

    def proof(self, secret: bytes, speaker: str) -> str:
        """The proof of `speaker` ("dialler" or "acceptor")."""
        text = "".join(f"{line}\n" for line in ("herd-mio link 1", speaker, *self))
        return hmac.digest(secret, text.encode(), "sha256").hex()

    def is_proven(self, secret: bytes, speaker: str, proof: str) -> bool:
        """Checks a proof. The time is the same for every wrong one, so it cannot be guessed digit
        by digit.
        """
        return hmac.compare_digest(self.proof(secret, speaker).encode(), proof.lower().encode())
