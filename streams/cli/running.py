"""What every command needs: settings, policy, connections, and an event loop that ends when it is told to."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from redis.asyncio import Redis

from segmentation.policy import Policy, load_policy
from state.client import connect
from state.founding import Founding
from streams.cli import overheard
from streams.cli.console import escape
from streams.cli.failures import CommandFailed, Terminated
from streams.event_loop import fast_loop
from streams.instants import parse_day, parse_instant
from streams.log import LogReader
from streams.settings import Settings
from streams.topics import Topic, TopicNames, require_fit

T = TypeVar("T")

CANCEL_AGAIN_SECONDS = 5.0
"""Before Python 3.12 `asyncio.wait_for`, which libraries use, may swallow a cancellation: then the next one counts."""


def read_settings(**values: Any) -> Settings:
    """The settings of the environment, and these. Raises ValidationError."""
    return Settings(**{name: value for name, value in values.items() if value is not None})


def read_policy(settings: Settings) -> Policy:
    """The policy that the settings name, or the default one. Raises PolicyError, OSError."""
    return load_policy(settings.policy) if settings.policy else Policy.default()


def policy_of_state(founding: Founding) -> Policy:
    """The policy that the workers go by. Raises CommandFailed where this version does not know it."""
    try:
        return Policy.of(founding.policy, founding.rest or Policy.default().canonical_rest())
    except ValueError:
        raise CommandFailed(
            "the state was made with a policy that this version of the program does not know: use the one that made it"
        ) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. SIGINT, SIGTERM and SIGHUP cancel the work, so that it leaves nothing behind."""
    keep_libraries_quiet()
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        return runner.run(_until_terminated(work))


def keep_libraries_quiet() -> None:
    """What a library has to say about a fault is said by the error that it raises, once."""
    logging.basicConfig(level=logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    overheard.listen()


async def _until_terminated(work: Coroutine[Any, Any, T]) -> T:
    loop, received = asyncio.get_running_loop(), []
    task = asyncio.create_task(work)

    def cancel() -> None:
        task.cancel()
        loop.call_later(CANCEL_AGAIN_SECONDS, cancel)

    def end(number: signal.Signals) -> None:
        received.append(number)
        cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Terminated(received[0]) from None
        raise


class Connections(NamedTuple):
    """To the store and to the log."""

    redis: Redis
    reader: LogReader


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connections]:
    """Both connected. Raises KafkaError, RedisError."""
    async with store(settings) as redis, LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        await reader.refresh()
        yield Connections(redis, reader)


@asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Redis]:
    """The store, which has answered once. Raises RedisError, and CommandFailed for an address that is none."""
    try:
        redis = connect(settings.redis_url.get_secret_value())
    except ValueError as error:
        raise CommandFailed(f"RESEGMENT_REDIS_URL: {error}") from None
    try:
        await redis.ping()
        yield redis
    finally:
        await redis.aclose()


async def reach_broker(settings: Settings) -> None:
    """Connect once, and log in. Raises KafkaError."""
    client = AIOKafkaClient(**settings.kafka_arguments())
    try:
        await client.bootstrap()
    finally:
        await client.close()


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """The broker's administration. Raises KafkaError."""
    client = AIOKafkaAdminClient(**settings.kafka_arguments())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def partition_count(reader: LogReader, settings: Settings) -> int:
    """How many partitions the installation has. Raises UnfitTopics."""
    names = TopicNames(settings.topic_prefix)
    counts = {topic: reader.partition_count(topic) for topic in Topic}
    require_fit(counts, names)
    return counts[Topic.PURCHASES]


@contextmanager
def open_lines(path: Path) -> Iterator[IO[bytes]]:
    """A file of events; - is standard input. Raises OSError."""
    if str(path) == "-":
        yield sys.stdin.buffer
    else:
        with path.open("rb") as file:
            yield file


def policy_path(path: Path | None) -> Path | None:
    """As it is found from anywhere: a child process may be given it."""
    return path.absolute() if path else None


def parse_day_option(text: str, option: str) -> int:
    """The number of a day. Raises CommandFailed."""
    try:
        return parse_day(text)
    except ValueError:
        raise CommandFailed(f"{option}: {escape(text)} is not a day like 1998-06-30") from None


def parse_time_option(text: str, option: str) -> int:
    """An instant in microseconds, or a day, which stands for its first moment (UTC). Raises CommandFailed."""
    try:
        return parse_instant(text if len(text) > 10 else f"{text}T00:00:00Z")
    except ValueError:
        raise CommandFailed(
            f"{option}: {escape(text)} is neither a day (1998-06-30) nor a date-time with its offset "
            "(1998-06-30T12:00:00Z)"
        ) from None
