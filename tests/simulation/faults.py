"""What goes wrong in a schedule, and when: every kind of harm that workers, broker and store can come to."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

import orjson

from state.keys import StageName, founding_key, shard_keys
from state.shard_store import NoSuchShard
from streams.shard import CorruptState
from streams.topics import ACCOUNT_INPUTS, TOLD_TOPICS, Topic
from tests.simulation.loop import Process
from tests.simulation.network import SLOW_SECONDS, Troubles
from tests.simulation.store import Value
from tests.simulation.worker import PREFIX, SESSION_SECONDS, Worker, World

WORKERS_MAX = 3
COPIES = 6
"""Earlier states of the store that it may go back to."""
COPY_SHARE = 0.25
"""How many of the scripts that are run are followed by a copy."""


class Faults:
    """Starts the workers, and does harm to them and their servers, until that is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.counts: Counter[str] = Counter()
        """Of each kind of fault, how many there were."""
        self.wrongs: list[str] = []
        """Workers that ended although they had no reason to."""
        self._started = 0
        self._copies: deque[dict[str, Value]] = deque(maxlen=COPIES)
        self._rebuilding = False
        """Whether somebody is on the way to say that the store be rebuilt."""
        self._may_cut = self._chance.random() < 0.5
        """The log is cut, or the store emptied, never both: it could not be rebuilt."""
        self._over = False
        self._victim: Worker | None = None
        """Who harm is to come to, where it is to be a certain one."""
        self._metas = [
            shard_keys(PREFIX, stage, number).meta for stage in StageName for number in range(world.settings.partitions)
        ]
        world.redis.watchers.append(self._copy)
        world.ended = self._ended
        for network in (world.log.network, world.redis.network):
            network.died = self._died

    # -- the schedule --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do harm for a while."""
        chance = self._chance
        for _ in range(chance.choice([1, 1, 2, 3]) if self._world.settings.transactions else 1):
            self._start()
        kinds = [kind for kind in self._kinds() if chance.random() < 0.5] or [self._crash]
        pause = 2 * chance.random() * 2
        for _ in range(chance.randint(5, 20)):
            await asyncio.sleep(chance.random() * pause)
            kind = chance.choice(kinds)
            if kind():
                self.counts[kind.__name__.strip("_")] += 1
        await asyncio.sleep(chance.random() * pause)
        self._end()

    def _kinds(self) -> list[Callable[[], bool]]:
        several = [self._freeze, self._join, self._split] if self._world.settings.transactions else []
        kinds = [
            *several,
            self._crash,
            self._crash_soon,
            self._ambush,
            self._nap,
            self._leave,
            self._rebalance,
            self._reclaim,
            self._store_down,
            self._broker_down,
            self._store_errors,
            self._broker_errors,
            self._batches_dropped,
            self._rollback,
            self._rollback,
            self._compact,
        ]
        return [*kinds, self._cut] if self._may_cut else [*kinds, self._empty]

    def _end(self) -> None:
        """From now on nothing happens to anybody."""
        world, self._over = self._world, True
        for network in (world.log.network, world.redis.network):
            network.troubles.end()
            network.down_until = 0.0
            network.doomed.clear()
            network.ambush = None
        world.dropped = 0.0
        for worker in list(world.workers):
            if worker.process.frozen:
                self._thaw(worker)
        if not any(worker.process.alive for worker in world.workers):
            self._later(0.0, self._start)
        world.group.rebalance()

    def _later(self, seconds_max: float, act: Callable[..., object], *arguments: object) -> None:
        # Without a fence whatever a worker has sent must have arrived before the next one begins.
        seconds_min = 0.0 if self._world.settings.transactions else 2 * SLOW_SECONDS
        self._world.loop.serve(seconds_min + self._chance.random() * seconds_max, act, *arguments)

    def _some_worker(self) -> Worker | None:
        if self._victim is not None:
            return self._victim
        running = [worker for worker in self._world.workers if not worker.process.frozen]
        return self._chance.choice(running) if running else None

    # -- workers -------------------------------------------------------------------------------------------------------

    def _start(self, *, rebuild: bool = False) -> None:
        world = self._world
        if len(world.workers) < (WORKERS_MAX if world.settings.transactions else 1):
            name = f"worker {self._started}"
            self._started += 1
            world.note(f"{name} starts{' with --rebuild' if rebuild else ''}")
            world.workers.append(Worker(world, name, rebuild=rebuild))
        elif not world.settings.transactions and world.workers[0].is_leaving:
            self._later(2.0, self._start)

    def _start_if_none(self) -> None:
        if self._world.settings.transactions and not any(not worker.process.frozen for worker in self._world.workers):
            self._start()

    def _died(self, process: Process) -> None:
        for worker in list(self._world.workers):
            if worker.process is process:
                self._world.note(f"{worker} dies while it calls a server")
                worker.die()
                self._later(8.0, self._start)

    def _ended(self, worker: Worker, error: BaseException) -> None:
        """A worker has ended by itself: right where the store is empty, and then somebody says that it be rebuilt."""
        if not isinstance(error, CorruptState | NoSuchShard) or not self.counts["empty"]:
            self.wrongs.append(f"{worker} ended: {type(error).__name__}: {error}")
        elif not self._rebuilding:
            self._rebuilding = True
            self._later(3.0, self._rebuild)

    def _rebuild(self) -> None:
        self._rebuilding = False
        for worker in list(self._world.workers):
            worker.die()
        self._start(rebuild=True)

    def _ambush(self) -> bool:
        """When the next call of a certain kind is done, just before or after it, harm comes to the caller or to all."""
        world, chance = self._world, self._chance
        name, network = chance.choice(
            [(name, world.redis.network) for name in ("commit", "commit", "trim", "outbox", "claim")]
            + [(name, world.log.network) for name in ("commit", "append_in_transaction", "append", "claim")]
        )
        harms = [self._crash, self._crash, self._nap, self._freeze, self._reclaim, self._rollback, self._rollback]
        harm = chance.choice(harms)
        if harm == self._freeze and not world.settings.transactions:
            harm = self._crash

        def act(process: Process | None) -> None:
            world.note(f"{process} is ambushed: {harm.__name__.strip('_')} at {name}")
            victim = [worker for worker in world.workers if worker.process is process]
            self._victim = victim[0] if victim else None
            harm()
            self._victim = None

        network.ambush = name, act
        return True

    def _crash(self) -> bool:
        worker = self._some_worker()
        if worker is None:
            return False
        self._world.note(f"{worker} dies")
        worker.die()
        self._later(8.0, self._start)
        return True

    def _crash_soon(self) -> bool:
        worker = self._some_worker()
        if worker is None:
            return False
        network = self._chance.choice([self._world.log.network, self._world.redis.network])
        network.doomed[worker.process] = self._chance.randint(1, 20)
        return True

    def _freeze(self) -> bool:
        """For longer than the group waits: it wakes as a zombie."""
        return self._freeze_for(SESSION_SECONDS + 20 * self._chance.random())

    def _nap(self) -> bool:
        return self._freeze_for(self._chance.random() ** 2 * SESSION_SECONDS)

    def _freeze_for(self, seconds: float) -> bool:
        worker, world = self._some_worker(), self._world
        if worker is None:
            return False
        world.note(f"{worker} freezes for {seconds:.2f} s")
        world.loop.freeze(worker.process)
        world.group.silent(worker)
        world.loop.serve(seconds, self._thaw, worker)
        self._later(SESSION_SECONDS, self._start_if_none)
        return True

    def _thaw(self, worker: Worker) -> None:
        if worker.process.frozen and worker.process.alive:
            self._world.note(f"{worker} goes on")
            self._world.loop.thaw(worker.process)
            worker.thawed()

    def _leave(self) -> bool:
        worker = self._some_worker()
        if worker is None:
            return False
        self._world.note(f"{worker} is to leave")
        worker.leave()
        self._later(8.0, self._start)
        return True

    def _join(self) -> bool:
        self._start()
        return True

    # -- the group -----------------------------------------------------------------------------------------------------

    def _rebalance(self) -> bool:
        self._world.group.rebalance()
        return True

    def _reclaim(self) -> bool:
        worker = self._some_worker()
        if worker is None:
            return False
        worker.reclaim()
        return True

    def _split(self) -> bool:
        """One is given all, and the others are not told."""
        worker, world = self._some_worker(), self._world
        if worker is None or len(world.workers) < 2:
            return False
        world.note(f"{worker} is told that everything is its own")
        everything = frozenset((stage, number) for stage in StageName for number in range(world.settings.partitions))
        worker.assigned(world.group.generation, everything)
        self._later(15.0, world.group.rebalance)
        return True

    # -- servers -------------------------------------------------------------------------------------------------------

    def _store_down(self) -> bool:
        network = self._world.redis.network
        network.down_until = self._world.loop.time() + 5 * self._chance.random()
        self._world.note(f"the store is down until {network.down_until:.3f}")
        return True

    def _broker_down(self) -> bool:
        network = self._world.log.network
        network.down_until = self._world.loop.time() + 5 * self._chance.random()
        self._world.note(f"the broker is down until {network.down_until:.3f}")
        return True

    def _store_errors(self) -> bool:
        self._trouble(self._world.redis.network.troubles, "store")
        return True

    def _broker_errors(self) -> bool:
        self._trouble(self._world.log.network.troubles, "broker")
        return True

    def _trouble(self, troubles: Troubles, whose: str) -> None:
        chance = self._chance
        for name in ("lost_before", "lost_after", "repeated", "slow"):
            if chance.random() < 0.5:
                setattr(troubles, name, 0.1 * chance.random())
        self._world.note(f"calls to the {whose} go wrong: {vars(troubles)}")
        self._later(10.0, troubles.end)

    def _batches_dropped(self) -> bool:
        def end() -> None:
            self._world.dropped = 0.0

        self._world.dropped = 0.5 * self._chance.random()
        self._world.note(f"{self._world.dropped:.0%} of the batches are dropped")
        self._later(10.0, end)
        return True

    def _copy(self, key: str) -> None:
        if not self._over and self._chance.random() < COPY_SHARE:
            copy = self._world.redis.copy()
            if all(meta in copy for meta in self._metas):
                self._copies.append(copy)

    def _rollback(self) -> bool:
        """To an earlier state: the whole store, as a stale replica does, or a part of it, as a node of a cluster.

        Not without transactions: of an outbox that comes back nobody knows then which records were published, so an old
        change may become the compacted topic's latest. The embedded store, which they are for, has no earlier state.
        """
        if not self._copies or not self._world.settings.transactions:
            return False
        chance = self._chance
        stages = chance.choice([(StageName.ACCOUNTS,), (StageName.RANKING,), tuple(StageName), tuple(StageName)])
        numbers = chance.choice([(0,), (1,), (0, 1), (0, 1)])
        tags = tuple(f"{{{PREFIX}:{stage}:{number}}}" for stage in stages for number in numbers)
        number = min(chance.randint(1, COPIES), chance.randint(1, COPIES), len(self._copies))
        self._world.note(f"the store goes back {number} copies in {', '.join(tags)}")
        if chance.random() < 0.3:
            tags = (*tags, founding_key(PREFIX))
        self._world.redis.take_back(self._copies[-number], lambda key: key.startswith(tags))
        if chance.random() < 0.5:  # a failover comes with other troubles
            more = chance.choice([self._rebalance, self._split, self._reclaim, self._crash])
            self._later(0.3, lambda: self._over or more())
        return True

    def _empty(self) -> bool:
        """Once, and not while it is founded: what is left of that is for a person to look at.

        Not without transactions: of records that were on their way one topic may have some, and the other none.
        """
        keyspace, workers = self._world.redis.keyspace, self._world.workers
        is_founded = all(key in keyspace for key in (*self._metas, founding_key(PREFIX)))
        if self.counts["empty"] or not self._world.settings.transactions or not is_founded:
            return False
        if not all(worker.is_prepared for worker in workers):
            return False
        self._world.note("the store loses everything")
        keyspace.clear()
        self._copies.clear()
        return True

    def _compact(self) -> bool:
        for number in range(self._world.settings.partitions):
            for topic in TOLD_TOPICS:
                self._world.log.places[topic, number].compact()
        return True

    def _cut(self) -> bool:
        """Retention takes what no state that may come back needs any more."""
        world = self._world
        for stage in StageName:
            for number in range(world.settings.partitions):
                key = shard_keys(PREFIX, stage, number).meta
                held = [copy.get(key, {}) for copy in (world.redis.keyspace, *self._copies)]
                progress = [orjson.loads(meta.get(b"progress", b"{}")) for meta in held if isinstance(meta, dict)]
                for topic in ACCOUNT_INPUTS if stage is StageName.ACCOUNTS else (Topic.STANDINGS,):
                    needed = min(reached.get(topic, 0) for reached in progress)
                    world.log.places[topic, number].cut(self._chance.randint(0, needed))
        return True
