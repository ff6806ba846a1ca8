"""The simulated log is one that the shards can rely on, as Apache Kafka is: see tests/kafka/test_log.py."""

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from streams.messages import Outgoing
from streams.relay import Publisher
from streams.topics import Topic
from tests.simulation.log import SimulatedLog, SimulatedPublisher, SimulatedReader, placed
from tests.simulation.log_contract import PARTITIONS, LogContract


class Simulated:
    """The simulated log and its clients."""

    now_ms = 1_000

    def __init__(self) -> None:
        self.log = SimulatedLog(PARTITIONS, Random(0))
        self.reader = SimulatedReader(self.log)

    def publisher(self, transactional_id: str | None = None) -> Publisher:
        """A publisher that is not claimed yet."""
        return SimulatedPublisher(self.log, Random(0), transactional_id=transactional_id)

    async def leave_open(self, transactional_id: str, records: list[Outgoing]) -> Callable[[], Awaitable[None]]:
        """Claim the id, send the records, do not commit. Returns what would commit them."""
        epoch = self.log.claim(transactional_id)
        for number, (place, batch) in enumerate(placed(records, PARTITIONS).items()):
            self.log.append_in_transaction(transactional_id, epoch, number, place, batch)

        async def commit() -> None:
            self.log.commit(transactional_id, epoch)

        return commit

    async def cut(self, place: tuple[Topic, int], first: int) -> None:
        """Let all records before an offset go."""
        self.log.places[place].cut(first)


@pytest.fixture
def log() -> Simulated:
    """An empty one."""
    return Simulated()


class TestSimulatedLog(LogContract):
    """All that is relied on."""
