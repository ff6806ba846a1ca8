"""Telling the shards of this worker what time it is."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.log import LogReader
from streams.messages import Tick, encode_tick
from streams.topics import EVENT_TOPICS, Topic, TopicNames

log = logging.getLogger(__name__)


class Ticker:
    """Publishes the wall clock to the partitions this worker owns. Should two workers tick at once, no harm is done."""

    def __init__(
        self,
        kafka_arguments: dict[str, Any],
        reader: LogReader,
        names: TopicNames,
        *,
        seconds: float,
        wall_clock: Callable[[], int],
        partitions: Callable[[], list[int]],
    ) -> None:
        self._arguments = kafka_arguments
        self._reader = reader
        self._name = names.name(Topic.TICKS)
        self._seconds = seconds
        self._wall_clock = wall_clock
        self._partitions = partitions

    async def run(self) -> None:
        """Tick until cancelled. A tick that fails is followed by the next one: only the latest counts."""
        async with AIOKafkaProducer(**self._arguments, acks="all", linger_ms=0) as producer:
            while True:
                try:
                    await self._tick(producer)
                except (KafkaError, OSError) as error:
                    log.warning("no tick", extra={"reason": f"{type(error).__name__}: {error}"})
                await asyncio.sleep(self._seconds)

    async def _tick(self, producer: AIOKafkaProducer) -> None:
        partitions = self._partitions()
        if not partitions:
            return
        now_us = self._wall_clock()
        bounds = await self._reader.bounds([(topic, number) for number in partitions for topic in EVENT_TOPICS])
        for number in partitions:
            ends = {str(topic): bounds[topic, number].end for topic in EVENT_TOPICS}
            value = encode_tick(Tick(now_us, "live", ends))
            await producer.send(self._name, value, partition=number)
        await producer.flush()
