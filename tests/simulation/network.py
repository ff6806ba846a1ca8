"""The way from a process to a server and back: slow, and where faults are on, broken at either end."""

import contextlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, TypeVar

from tests.simulation.loop import PROCESS, Process, SimulatedLoop

T = TypeVar("T")

QUICK_SECONDS, SLOW_SECONDS = 0.004, 2.0
"""Most calls take less than the one at a time; a few as long as the other."""


class Troubles:
    """How often a call to a server goes wrong, each in [0, 1]. All zero: never."""

    def __init__(self, *, lost_before: float = 0, lost_after: float = 0, repeated: float = 0, slow: float = 0) -> None:
        self.lost_before = lost_before
        """The server never hears of it, and the caller of an error."""
        self.lost_after = lost_after
        """The server has done it, and the caller hears of an error."""
        self.repeated = repeated
        """The answer got lost and the client asked again: done twice, and the second answer counts."""
        self.slow = slow

    def end(self) -> None:
        """From now on all goes well."""
        self.lost_before = self.lost_after = self.repeated = self.slow = 0


class Network:
    """The calls of all processes to one server."""

    def __init__(self, chance: Random, error: Callable[[str], Exception], troubles: Troubles) -> None:
        self._random = chance.random
        self._error = error
        self.troubles = troubles
        self.loop: SimulatedLoop | None = None
        """None: no simulation is running; every call is answered at once."""
        self.down_until = 0.0
        """Virtual time until which the server refuses every call."""
        self.doomed: dict[Process, int] = {}
        """After so many more calls a process dies: at half of them before the server hears of it."""
        self.died: Callable[[Process], None] = lambda process: None
        self.ambush: tuple[str, Callable[[Process | None], None]] | None = None
        """The name of an operation, and what is done to who asks for it next: just before or just after it is done."""

    async def call(self, operation: Callable[..., T], *arguments: Any) -> T:
        """What the server answers. Raises what it raises, and the network's error."""
        loop, random, troubles = self.loop, self._random, self.troubles
        if loop is None:
            return operation(*arguments)
        process = PROCESS.get()
        if process in self.doomed:
            await self._count_down(process, operation, arguments)
        trouble = random()
        future = loop.create_future()
        if loop.time() < self.down_until or trouble < troubles.lost_before:
            loop.serve(self._seconds(), _fail, future, self._error("connection refused"))
        else:
            trouble -= troubles.lost_before
            loop.serve(self._seconds(), self._serve, loop, process, future, trouble, operation, arguments)
        answer: T = await future
        return answer

    def _seconds(self) -> float:
        random = self._random
        chosen = random()
        if chosen < self.troubles.slow:
            return random() * SLOW_SECONDS
        return 0.0 if chosen < 0.5 else random() * QUICK_SECONDS

    def _serve(
        self,
        loop: SimulatedLoop,
        process: Process | None,
        future: Any,
        trouble: float,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        troubles = self.troubles
        strike: Callable[[], None] | None = None
        if self.ambush is not None and operation.__name__ == self.ambush[0]:
            (_, act), self.ambush = self.ambush, None
            if self._random() < 0.5:
                act(process)
            else:
                strike = partial(act, process)
        try:
            answer = operation(*arguments)
            if trouble < troubles.lost_after:
                raise self._error("connection reset")
            if trouble - troubles.lost_after < troubles.repeated:
                answer = operation(*arguments)
        except Exception as error:
            loop.serve(self._seconds(), _fail, future, error)
        else:
            seconds = self._seconds()
            if seconds:
                loop.serve(seconds, _answer, future, answer)
            else:
                _answer(future, answer)
        if strike is not None:
            strike()

    async def _count_down(
        self, process: Process | None, operation: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        assert process is not None
        assert self.loop is not None
        self.doomed[process] -= 1
        if self.doomed[process] > 0:
            return
        del self.doomed[process]
        if self._random() < 0.5:
            self.loop.serve(self._seconds(), _carry_out, operation, arguments)
        self.died(process)
        await self.loop.create_future()  # for ever: it is dead


def _carry_out(operation: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """For nobody who could hear of the outcome."""
    with contextlib.suppress(Exception):
        operation(*arguments)


def _answer(future: Any, answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: Any, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # heard, also where who asked is dead
