"""What goes wrong in a schedule, and when."""

import asyncio
from collections import Counter

from tests.simulation.network import Network
from tests.simulation.store import Value
from tests.simulation.worker import Worker, World


class Faults:
    """Starts the workers, and does them harm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.counts: Counter[str] = Counter()
        self.wrongs: list[str] = []

    async def run(self) -> None:
        self._start()

    def _start(self) -> None:
        world = self._world
        worker = Worker(world, f"w{self.counts['start']}")
        self.counts["start"] += 1
        world.workers.append(worker)
