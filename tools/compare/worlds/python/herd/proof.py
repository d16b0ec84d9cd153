"""How the two ends of a link prove to one another that they know the herd's secret, without telling it.

The proof is an HMAC over both names and both nonces, so an old one proves nothing; and over the side that
speaks, so one that is sent back proves nothing either.
"""

import hmac
from typing import NamedTuple


class Parties(NamedTuple):
    """The names at the two ends, and the nonces that they chose, in hexadecimal digits."""

    dialler: str
    acceptor: str
    dialler_nonce: str
    acceptor_nonce: str

    def proof(self, secret: bytes, speaker: str) -> str:
        """What `speaker` ("dialler" or "acceptor") says to prove itself."""
        text = "".join(f"{line}\n" for line in ("herd-mio link 1", speaker, *self))
        return hmac.digest(secret, text.encode(), "sha256").hex()

    def is_proven(self, secret: bytes, speaker: str, proof: str) -> bool:
        """Takes as long for every wrong proof, so that nobody can find one digit by digit."""
        return hmac.compare_digest(self.proof(secret, speaker).encode(), proof.lower().encode())
