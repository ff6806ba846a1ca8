"""The load: purchases of many accounts, log-normal amounts, spread over the last year."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from streams.partitions import partition_of
from streams.topics import Topic, TopicNames

DAYS = 364


def account_id(number: int) -> str:
    """The id of an account."""
    return f"account-{number:07d}"


def purchases(count: int, accounts: int, *, seed: int, now: datetime) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of purchase records; the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        account = account_id(rng.randrange(accounts))
        occurred_at = now - timedelta(seconds=rng.randrange(DAYS * 86_400))
        yield (
            account.encode(),
            orjson.dumps(
                {
                    "event_id": f"{seed}-{number}",
                    "account_id": account,
                    "occurred_at": occurred_at.isoformat(timespec="seconds"),
                    "amount_minor": int(rng.lognormvariate(9, 1.5)) + 1,
                    "currency": "USD",
                }
            ),
        )


async def publish(kafka_arguments: dict[str, Any], topic_prefix: str, records: Iterator[tuple[bytes, bytes]]) -> int:
    """Publish as fast as the broker takes it. Returns how many."""
    topic = TopicNames(topic_prefix).name(Topic.PURCHASES)
    count = 0
    async with AIOKafkaProducer(**kafka_arguments, acks="all", max_batch_size=262_144) as producer:
        partitions = len(await producer.partitions_for(topic))
        builders = [producer.create_batch() for _ in range(partitions)]
        for key, value in records:
            partition = partition_of(key, partitions)
            if builders[partition].append(timestamp=None, key=key, value=value) is None:
                await producer.send_batch(builders[partition], topic, partition=partition)
                builders[partition] = producer.create_batch()
                builders[partition].append(timestamp=None, key=key, value=value)
            count += 1
        sent = [
            await producer.send_batch(builder, topic, partition=partition)
            for partition, builder in enumerate(builders)
            if builder.record_count()
        ]
        await asyncio.gather(*sent)
        await producer.flush()
    return count


def now() -> datetime:
    """The moment the load is made for, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
