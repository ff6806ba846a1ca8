"""One worker as a process of its own, for tests that kill it: settings and policy come on the standard input.

SIGTERM lets it drain and leave; a second one ends it at once. SIGUSR1 lets it say what each of its tasks waits for.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from segmentation.policy import Policy
from state.client import connect
from streams.cli.log_lines import formatter
from streams.event_loop import fast_loop
from streams.settings import Settings
from streams.transport import Consumer
from streams.worker import Worker


async def main() -> None:
    """Work until asked to leave."""
    given = json.load(sys.stdin)
    fields = given["settings"]
    # not validated: tests want shorter sessions than anybody else should
    settings = Settings.model_construct(**fields | {"redis_url": SecretStr(fields["redis_url"])})
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    redis = connect(settings.redis_url.get_secret_value())
    worker = Worker(settings, Policy.model_validate(given["policy"]), redis)

    def leave() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    def confess() -> None:
        thread = cast(Consumer, worker.app.consumer)._thread
        for task in asyncio.all_tasks(loop) | asyncio.all_tasks(thread.thread_loop):
            chain: list[str] = []
            waiting: Any = task.get_coro()
            while (frame := getattr(waiting, "cr_frame", None)) is not None:
                chain.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
                waiting = getattr(waiting, "cr_await", None)
            print("waits:", " > ".join(chain), file=sys.stderr, flush=True)

    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_signal_handler(signal.SIGUSR1, confess)
    try:
        await worker.run(stop, rebuild=given["rebuild"])
    finally:
        await redis.aclose()


def run() -> None:
    """What this process is for."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(is_terminal=False))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("faust", "mode"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # without a broker it says so fifty times a second
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(main())


if __name__ == "__main__":
    run()
