"""Connecting to a neighbour, again and again, ever more slowly while it is not there."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from .neighbours import Broken, Neighbour

FIRST_S = 0.1
CAP_S = 1.0
STEADY_S = 2.0
"""A link that held for so long was a good one."""


async def keep_dialling(neighbour: Neighbour, link: Callable[[Neighbour], Awaitable[None]]) -> None:
    """Calls `link`, which returns or fails when the link is over, until it is cancelled."""
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
        # The jitter keeps servers that lost the same neighbour from dialling it in the same millisecond.
        await asyncio.sleep(wait_s * random.uniform(0.5, 0.9))
        wait_s = min(2 * wait_s, CAP_S)
