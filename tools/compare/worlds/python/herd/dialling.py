"""Connects to a neighbour again and again. The waits become longer while the neighbour is missing.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from .neighbours import Broken, Neighbour

FIRST_S = 0.1
CAP_S = 1.0
STEADY_S = 2.0
"""After a link that held for so long, the first redial comes soon."""


async def keep_dialling(neighbour: Neighbour, link: Callable[[Neighbour], Awaitable[None]]) -> None:
    """Calls `link` until it is cancelled. `link` returns or fails when the link ends."""
    loop = asyncio.get_running_loop()
    wait_s = FIRST_S
    while True:
        began = loop.time()
        try:
            await link(neighbour)
        except TimeoutError:
            neighbour.complain("no answer in time")
        except (OSError, Broken) as why:
            neighbour.complain(str(why))
        if loop.time() - began >= STEADY_S:
            wait_s = FIRST_S
        # With the jitter, servers that lost the same neighbour do not all dial at the same time.
        await asyncio.sleep(wait_s * random.uniform(0.5, 0.9))
        wait_s = min(2 * wait_s, CAP_S)
