"""Somebody who applies other policies while all that happens: now and then not to the end, and then once more."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from segmentation.application import NOT_LARGER
from segmentation.policy import Policy
from state.founding import NoInstallation, read_founding
from streams.applying import CannotApply, apply_policy, behind
from streams.messages import Outgoing, decode_tick_or_switch
from streams.rest import look
from streams.topics import Topic
from tests.simulation.log import SimulatedReader
from tests.simulation.loop import Process
from tests.simulation.worker import PREFIX, World

PATIENCE_SECONDS = 5.0
_TIERS = [
    {"key": key, "enterprise": enterprise, "commercial": 100 - key - enterprise}
    for key, enterprise in ((30, 50), (10, 40), (50, 30))
]
SILENT = "silent"
"""What the versions of policies end with that are applied silently: by that the oracle knows."""


class Operator:
    """Applies policies as `resegment policy apply` does."""

    def __init__(self, world: World, policies: Sequence[Policy]) -> None:
        """policies: whose rules are tried, whether they can be applied or not."""
        self._world = world
        self._policies = policies
        self._count = 0
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Apply some, sometimes none."""
        chance = self._world.chance
        for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
            await asyncio.sleep(chance.random() * 15)
            await self._apply_until_done(*self._new_policy())

    def _new_policy(self) -> tuple[Policy, bool]:
        world = self._world
        self._count += 1
        is_silent = world.chance.random() < 0.4
        other = world.chance.choice(self._policies)
        fields = {
            name: other.document()[name]
            for name in ("window_days", "new_start_days", "basis", "band", "engagement_days", "risk")
            if world.chance.random() < 0.4
        }
        for name in NOT_LARGER:
            if name in fields and world.chance.random() < 0.8:  # else it is refused, most of the time
                fields[name] = min(fields[name], world.policy.document()[name])
        if world.chance.random() < 0.3:
            fields["tiers"] = world.chance.choice(_TIERS)
        version = f"{self._count}{SILENT if is_silent else ''}"
        policy = world.policy.with_changes(version=version, **fields)
        world.files[policy.hash] = policy
        return policy, is_silent

    async def _apply_until_done(self, policy: Policy, is_silent: bool) -> None:
        world = self._world
        for _ in range(5):
            process = Process("operator")
            if world.chance.random() < 0.3:
                network = world.chance.choice([world.log.network, world.redis.network])
                network.doomed[process] = world.chance.randint(1, 10)
            done = world.loop.start(process, self._apply(policy, is_silent=is_silent))
            await asyncio.wait([done], timeout=PATIENCE_SECONDS)
            world.loop.kill(process)
            if done.done() and done.result():
                return

    async def _apply(self, policy: Policy, *, is_silent: bool) -> bool:
        """Whether there is no more to do."""
        world = self._world
        try:
            applied = await apply_policy(
                cast(Redis, world.redis), PREFIX, SimulatedReader(world.log), self._write, policy, is_silent=is_silent
            )
        except (KafkaError, RedisError, OSError):
            return False
        except (CannotApply, NoInstallation) as error:
            world.note(f"the operator: {error}")
            self.counts["policy refused"] += 1
            return True
        self.counts["policy applied silently" if is_silent else "policy applied"] += 1
        world.policy = policy
        world.note(f"the operator has applied policy {applied.number}")
        return True

    async def _write(self, number: int, value: bytes) -> None:
        log = self._world.log
        record = Outgoing([Topic.TICKS], None, value, [], self._world.wall_clock_us // 1000)
        append: Any = log.append
        await log.network.call(append, (Topic.TICKS, number), [record], decode_tick_or_switch(value))

    async def complete(self) -> None:
        """Once nothing goes wrong any more: whatever was begun is done to the end, as somebody would see to."""
        redis = cast(Redis, self._world.redis)
        known = await read_founding(redis, PREFIX)
        if known is not None and behind(known, await look(redis, PREFIX, known.partitions)):
            policy = self._world.files[known.policy_hash]
            await self._apply(policy, is_silent=known.applied is not None and known.applied.is_silent)
