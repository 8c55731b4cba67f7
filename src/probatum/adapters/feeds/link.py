"""Keep a feed going: wait longer after each failure, by a random part, and never for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from probatum.core.errors import ParameterError

Session = Callable[[Callable[[], None]], Awaitable[str]]
"""One connection: call what it is given at the first good message; return why it ended."""


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare when a connection is given up, and how long to wait before the next one."""

    connect_s: float = 10.0
    silence_s: float = 30.0
    first_wait_s: float = 0.25
    longest_wait_s: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ParameterError(name, "greater than 0", getattr(self, name))


async def keep_going(session: Session, settings: LinkSettings, rng: random.Random, lost: Callable[[str], None]) -> None:
    """Run one session after another until cancelled. Those that delivered nothing double the wait, up to the longest."""
    failures = 0

    def delivered() -> None:
        nonlocal failures
        failures = 1

    while True:
        failures += 1
        lost(await session(delivered))
        longest_s = min(settings.longest_wait_s, settings.first_wait_s * 2.0 ** min(failures - 1, 32))
        await asyncio.sleep(longest_s * rng.uniform(0.5, 1.0))


def words(error: BaseException) -> str:
    """Return what an error says, short and in one line: it may quote what a stranger sent."""
    return " ".join((str(error) or type(error).__name__).split())[:200]
