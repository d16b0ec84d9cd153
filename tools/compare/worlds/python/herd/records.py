"""The table of records: the newest record of each client, with the oldest change first.

A dict remembers the order of insertion. A changed record is removed and inserted again, so the dict
is also the feed of changes for neighbours. A neighbour with everything up to some change lacks
exactly the records after that change.
"""

from collections.abc import Iterator

from .message import ATTOSECONDS, MAX_EPOCH, MAX_LEAD, NANOSECOND, Record

MAX_AHEAD = 120 * ATTOSECONDS
"""A record further ahead of the server's clock comes from a server with a wrong clock. An update
replaces it.
"""


class Records:
    def __init__(self) -> None:
        self._by_client: dict[bytes, Record] = {}
        self.last_sequence = 0
        """The sequence number of the latest change."""
        self.stale = 0
        """The number of own clients' records that changed nothing."""
        self.ahead = 0
        """The number of stamps more than a minute ahead of the server's clock."""
        self.behind = 0
        """The number of stamps more than a minute behind it."""

    def __len__(self) -> int:
        return len(self._by_client)

    def get(self, client: bytes) -> Record | None:
        return self._by_client.get(client)

    def update(self, record: Record, now_ns: int) -> bool:
        """Takes a record of an own client with this receipt time, if it is the newest.

        It may lose only because of another server's wrong clock. Then it gets the next epoch, and
        wins everywhere.
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
        """The clients whose record changed after this change, the latest first."""
        for client, record in reversed(self._by_client.items()):
            if record.sequence <= sequence:
                return
            yield client

    def digest(self) -> int:
        """A number that is the same for all tables with the same records, in any order."""
        return sum(record.hash for record in self._by_client.values()) & 0xFFFFFFFFFFFFFFFF
