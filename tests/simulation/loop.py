"""An event loop without a clock: a seed decides what runs next, and time jumps to whatever waits.

What runs belongs to a process (a simulated worker) or to none (the servers, and whoever drives the schedule). A process
may freeze: what it would run is kept until it thaws. Or it may die: nothing of it ever runs again, as after kill -9.
"""

import asyncio
import contextlib
import heapq
import warnings
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar, cast

T = TypeVar("T")

PROCESS: "ContextVar[Process | None]" = ContextVar("process", default=None)
"""Whose code is running."""


class Process:
    """What freezes and dies as one."""

    __slots__ = ("alive", "frozen", "kept", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.kept: list[Handle] = []
        """What came up while it was frozen."""

    def __repr__(self) -> str:
        return self.name


class Handle:
    """Something to run; what asyncio calls a handle."""

    __slots__ = ("_when", "arguments", "callback", "context", "process", "stopped")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context) -> None:
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.process: Process | None = context.get(PROCESS)
        self.stopped = False
        self._when = 0.0

    def cancel(self) -> None:
        """It will not run."""
        self.stopped = True

    def cancelled(self) -> bool:
        """Whether it will not run."""
        return self.stopped

    def when(self) -> float:
        """The time it is to run at, where it is a timer."""
        return self._when


class NothingToDo(Exception):
    """Everybody waits, and no timer is set: the main task would wait for ever."""


class SimulatedLoop:
    """One schedule's event loop: as much of one as asyncio's futures, tasks and timers ask for."""

    def __init__(self, seed: int) -> None:
        self._pick = Random(seed).random
        self._now = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._closed = False
        self._servers = Context()
        """The context of what belongs to no process."""
        self.tasks: list[asyncio.Task[Any]] = []
        self.failures: list[str] = []
        """What asyncio would have logged: exceptions that nobody took."""
        self.steps = 0
        self.digest = 0
        """Of all decisions so far: equal for two runs only if everything happened in the same order."""

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """As long as there is anybody to ask."""
        return not self._closed

    def is_closed(self) -> bool:
        """Whether the schedule is over."""
        return self._closed

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:
        """Run it at the present time, before or after whatever else is to run now."""
        handle = Handle(callback, args, context if context is not None else copy_context())
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run it after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run it at a virtual time."""
        handle = Handle(callback, args, context if context is not None else copy_context())
        handle._when = when
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def create_task(
        self, coroutine: Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None
    ) -> "asyncio.Task[T]":
        """A task of this loop, of the process that is running."""
        task = asyncio.Task(coroutine, loop=cast(asyncio.AbstractEventLoop, self), context=context)
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it: nothing may fail unseen."""
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    # -- what a simulation asks of it ----------------------------------------------------------------------------------

    def serve(self, delay: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Run it after a while on behalf of a server: whatever happens to the process that asked."""
        if delay > 0:
            self.call_at(self._now + delay, callback, *arguments, context=self._servers)
        else:
            self.call_soon(callback, *arguments, context=self._servers)

    def start(self, process: Process | None, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task of a process."""
        context = Context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def freeze(self, process: Process) -> None:
        """Nothing of the process runs from now on."""
        process.frozen = True

    def thaw(self, process: Process) -> None:
        """The process goes on, and finds that time has passed."""
        process.frozen = False
        self._ready += process.kept
        process.kept = []

    def kill(self, process: Process) -> None:
        """Nothing of the process ever runs again."""
        process.alive = False
        process.kept = []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until a coroutine, which belongs to no process, has returned. Raises NothingToDo."""
        asyncio.events._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        try:
            task = self.start(None, main)
            ready, pick = self._ready, self._pick
            while not task.done():
                if not ready:
                    self._advance()
                number = int(pick() * len(ready))
                handle = ready[number]
                ready[number] = ready[-1]
                ready.pop()
                process = handle.process
                if handle.stopped or (process is not None and self._is_kept(process, handle)):
                    continue
                self.steps += 1
                self.digest = hash((self.digest, number, len(ready), self._now))
                handle.context.run(handle.callback, *handle.arguments)
            return task.result()
        finally:
            self._close()
            asyncio.events._set_running_loop(None)

    def _is_kept(self, process: Process, handle: Handle) -> bool:
        if not process.alive:
            return True
        if process.frozen:
            process.kept.append(handle)
            return True
        return False

    def _advance(self) -> None:
        timers = self._timers
        while timers and not self._ready:
            self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                handle = heapq.heappop(timers)[2]
                if not handle.stopped:
                    self._ready.append(handle)
        if not self._ready:
            raise NothingToDo

    def _close(self) -> None:
        """End what waits, without letting it do anything any more."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was to begin and never will
            self._close_tasks()

    def _close_tasks(self) -> None:
        for task in self.tasks:
            if task.done():
                if not task.cancelled():
                    task.exception()
            else:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):  # it would have waited for something on its way out
                    task.get_coro().close()
        self.tasks.clear()
