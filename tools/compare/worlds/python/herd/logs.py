"""The log: a line for each event, written by a thread of its own.

The loop only puts records into a queue (logging's QueueHandler, as its cookbook has it), so it never waits
for the disk. The queue has an end: what is beyond it is dropped, counted, and told.
"""

import logging
import logging.handlers
from datetime import UTC, datetime
from queue import SimpleQueue

QUEUED_LINES = 100_000

_log = logging.getLogger("herd")


class _Formatter(logging.Formatter):
    """RFC 3339, UTC, microseconds."""

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
    """Begins to log into that file; `stop` of what is returned writes what is left."""
    file = logging.FileHandler(path)
    file.setFormatter(_Formatter("%(asctime)s [%(levelname)-5s] %(message)s"))
    logging.addLevelName(logging.WARNING, "WARN")
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    listener = logging.handlers.QueueListener(queue, file)
    # asyncio reports what goes wrong in it to a logger of its own; so it is the root that is set up.
    root = logging.getLogger()
    root.setLevel({"info": logging.INFO, "warn": logging.WARNING}[level])
    root.addHandler(_BoundedQueueHandler(queue))
    # Nobody reads where in the program a line was logged, and finding it out is slow.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    listener.start()
    return listener
