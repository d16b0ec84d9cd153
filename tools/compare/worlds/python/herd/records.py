"""The table of positions: the newest record of each client, oldest change first.

A dict remembers the order of insertion. A record that changes is taken out and put in again, so the dict is
also the feed that neighbours are told: whoever has heard everything up to some change lacks exactly what
stands behind it.
"""

from collections.abc import Iterator

from .message import ATTOSECONDS, MAX_EPOCH, MAX_LEAD, NANOSECOND, Record

MAX_AHEAD = 120 * ATTOSECONDS
"""A record further ahead of our clock is set aside: another server's clock is wrong."""


class Records:
    def __init__(self) -> None:
        self._by_client: dict[bytes, Record] = {}
        self.last_sequence = 0
        """The number of the latest change."""
        self.stale = 0
        """How many records of our own clients changed nothing."""
        self.ahead = 0
        """How many were stamped more than a minute ahead of our clock."""
        self.behind = 0
        """How many were stamped more than a minute behind it."""

    def __len__(self) -> int:
        return len(self._by_client)

    def get(self, client: bytes) -> Record | None:
        return self._by_client.get(client)

    def update(self, record: Record, now_ns: int) -> bool:
        """Takes a record of an own client, received at that time, if it is the newest.

        A wrong clock of another server may be all that makes the known record look later. Then the new one begins
        the next epoch, which wins everywhere.
        """
        now = now_ns * NANOSECOND
        self.ahead += record.stamp > now + MAX_LEAD
        self.behind += record.stamp < now - MAX_LEAD
        known = self._by_client.get(record.client)
        if known:
            record.epoch = known.epoch
            if known.order >= record.order and known.epoch < MAX_EPOCH:
                is_far_ahead = known.effective > now + MAX_AHEAD
                record.epoch += record.stamp > known.stamp or is_far_ahead
        is_news = self.offer(record)
        self.stale += not is_news
        return is_news

    def offer(self, record: Record) -> bool:
        """Takes a record if it is the newest of its client."""
        known = self._by_client.get(record.client)
        if known:
            if (known.epoch, known.order) >= (record.epoch, record.order):
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
