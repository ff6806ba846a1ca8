"""A Resegment worker that knows what CPU each of its parts takes; its settings come from the environment.

On SIGTERM it prints one line of JSON: CPU seconds by part, from the first batch on, and memory.
"""

import asyncio
import json
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from segmentation.policy import Policy
from state.client import connect
from streams.accounts import AccountShard
from streams.event_loop import fast_loop
from streams.ranking import RankingShard
from streams.relay import Relay
from streams.settings import Settings
from streams.worker import Worker

cpu_seconds: dict[str, float] = {"accounts": 0.0, "due": 0.0, "ranking": 0.0, "relay": 0.0}
began: list[float] = []


class _Metered:
    """A coroutine, each step of which is timed on its thread's CPU clock."""

    def __init__(self, work: Coroutine[Any, Any, Any], part: str) -> None:
        self.work, self.part = work, part

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        while True:
            start = time.thread_time()
            try:
                waits_for = next(steps)
            except StopIteration as end:
                return end.value
            finally:
                cpu_seconds[self.part] += time.thread_time() - start
            yield waits_for


def _meter(owner: type, method: str, part: str) -> None:
    plain: Callable[..., Coroutine[Any, Any, Any]] = getattr(owner, method)

    async def metered(*arguments: Any, **named: Any) -> Any:
        if not began and part == "accounts":
            began.append(time.process_time())
            cpu_seconds.update(dict.fromkeys(cpu_seconds, 0.0))
        return await _Metered(plain(*arguments, **named), part)

    setattr(owner, method, metered)


async def main() -> None:
    """Run until SIGTERM."""
    _meter(AccountShard, "_take_events", "accounts")
    _meter(AccountShard, "due", "due")
    _meter(RankingShard, "take", "ranking")
    _meter(Relay, "publish_some", "relay")
    settings = Settings()
    redis = connect(settings.redis_url.get_secret_value())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Worker(settings, Policy.default(), redis).run(stop)
    await redis.aclose()
    total = time.process_time() - (began[0] if began else 0.0)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**cpu_seconds, "total": total, "memory_mb": memory_mb}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(main())
