"""The table of positions: the newest record of each client, oldest change first.

A dict remembers the order of insertion. A record that changes is taken out and put in again, so the dict is
also the feed that neighbours are told: whoever has heard everything up to some change lacks exactly what
stands behind it.
"""

from collections.abc import Iterator

from .message import Record


class Records:
    def __init__(self) -> None:
        self._by_client: dict[bytes, Record] = {}
        self.last_sequence = 0
        """The number of the latest change."""

    def __len__(self) -> int:
        return len(self._by_client)

    def get(self, client: bytes) -> Record | None:
        return self._by_client.get(client)

    def offer(self, record: Record) -> bool:
        """Takes a record if it is the newest of its client."""
        known = self._by_client.get(record.client)
        if known:
            if known.order >= record.order:
                return False
            del self._by_client[record.client]
        self.last_sequence += 1
        record.sequence = self.last_sequence
        self._by_client[record.client] = record
        return True

    def changed_after(self, sequence: int) -> Iterator[bytes]:
        """The clients whose record changed after that change, the latest first."""
        for client, record in reversed(self._by_client.items()):
            if record.sequence <= sequence:
                return
            yield client

    def digest(self) -> int:
        """A number that tables with the same records share, whatever the order in which they came."""
        return sum(record.hash for record in self._by_client.values()) & 0xFFFFFFFFFFFFFFFF
