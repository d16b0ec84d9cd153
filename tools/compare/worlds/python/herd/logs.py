"""The log: a line for each event. A thread writes it.

The loop only puts records into a queue (logging's QueueHandler, as in its cookbook), so it never
waits for the disk. The queue is bounded. Lines beyond the bound are dropped, and their number is
logged.
"""

import logging
import logging.handlers
from datetime import UTC, datetime
from queue import SimpleQueue

QUEUED_LINES = 100_000

_log = logging.getLogger("herd")


class _Formatter(logging.Formatter):
    """Times in RFC 3339, UTC, with microseconds."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, queue: "SimpleQueue[logging.LogRecord]") -> None:
        super().__init__(queue)
        self._waiting = queue
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        waiting = self._waiting.qsize()
        if waiting >= QUEUED_LINES:
            self._dropped += 1
            return
        self._waiting.put(record)
        if self._dropped and waiting < QUEUED_LINES // 2:
            dropped, self._dropped = self._dropped, 0
            _log.warning("log: %d lines were dropped, the disk did not keep up", dropped)


def start(path: str, level: str) -> logging.handlers.QueueListener:
    """Starts the log into this file. `stop` of the returned listener writes the rest."""
    file = logging.FileHandler(path)
    file.setFormatter(_Formatter("%(asctime)s [%(levelname)-5s] %(message)s"))
    logging.addLevelName(logging.WARNING, "WARN")
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    listener = logging.handlers.QueueListener(queue, file)
    # asyncio logs its errors to its own logger, so the root logger is set up.
    root = logging.getLogger()
    root.setLevel({"info": logging.INFO, "warn": logging.WARNING}[level])
    root.addHandler(_BoundedQueueHandler(queue))
    # The log does not show the place in the program, and finding it out is slow.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    listener.start()
    return listener
