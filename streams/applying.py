"""Another policy for accounts that go on: how it is applied, and by which one the shards of a worker go.

`apply_policy` notes it beside the founding and writes it into the log, among the ticks of each partition. An account
shard takes it from there, when it has applied all that was there before, and keeps it in its state; a ranking shard
hears of it from the account shards.
"""

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from segmentation.application import refusals
from segmentation.policy import Policy
from state.founding import AppliedPolicy, Founding, note_applied, note_rest, read_founding, require_founding
from state.shard_store import NoSuchShard
from streams.messages import PolicySwitch, encode_switch
from streams.rest import ShardsNow, look
from streams.shard import LogPosition, Shard
from streams.topics import EVENT_TOPICS, Topic

log = logging.getLogger(__name__)

PolicyOf = Callable[[AppliedPolicy | None], Awaitable[Policy]]
"""The whole policy of a shard with such rules; None: those that the installation was founded with."""


class CannotApply(Exception):
    """The policy was not applied, and nothing was changed. The message says why."""


class Bounds(Protocol):
    """What is asked of a reader of the log."""

    async def bounds(self, partitions: Sequence[tuple[Topic, int]]) -> dict[tuple[Topic, int], LogPosition]:
        """Where the log begins and ends."""


class Policies:
    """By which policies the shards of one worker go.

    The rules are each shard's own: they are in its state, and come through the log. All else is the same for all of
    them: as the worker that began last has it, or the policy that was applied since.
    """

    def __init__(self, redis: Redis, prefix: str, policy: Policy) -> None:
        """policy: the worker's."""
        self._redis, self._prefix, self._rest = redis, prefix, policy.canonical_rest()

    async def of(self, applied: AppliedPolicy | None) -> Policy:
        """The whole policy of a shard with such rules; None: those of the founding. One round trip.

        Raises NoSuchShard, RedisError, and ValueError for rules that this version of the program does not know.
        """
        known = await read_founding(self._redis, self._prefix)
        if known is not None and applied is not None and applied.number > known.number:
            known = await note_applied(self._redis, self._prefix, applied)  # the store went back, and the log did not
        if known is None:
            raise NoSuchShard(f"what the installation {self._prefix!r} was founded with is gone")
        rules, rest = applied.policy if applied else known.first_policy or known.policy, known.rest
        number = applied.number if applied else 0
        if number < known.number:
            rest = known.rests_before.get(number + 1, rest)  # it is on its way, and takes both at once
        try:
            return Policy.of(rules, self._rest if rest is None else rest)
        except ValueError:
            return Policy.of(rules, self._rest)  # a worker of a newer version began meanwhile


class RuledShard(Shard):
    """A shard that goes by a policy."""

    policy: Policy
    applied: AppliedPolicy | None
    """The policy that was applied last; None: none was."""

    def __init__(self, *arguments: Any, policy_of: PolicyOf, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._policy_of = policy_of

    @abstractmethod
    def _go_by(self, policy: Policy) -> None:
        """From now on."""

    async def _take_policy(self, state: Mapping[str, Any]) -> None:
        self.applied = applied_of(state)
        self._go_by(await self._policy_of(self.applied))

    async def watch_reading(self) -> None:
        """And begin anew where it would begin by another policy: a worker began with one, or the store went back."""
        await super().watch_reading()
        if not self.owned or self.lock.locked():
            return
        applied = self.applied
        try:
            policy = await self._policy_of(applied)
        except (RedisError, NoSuchShard, ValueError) as error:
            log.debug("cannot see by which policy to go", extra={"shard": self, "reason": repr(error)})
            return
        async with self.lock:
            if self.applied == applied and policy.canonical_rest() != self.policy.canonical_rest():
                self._go_back("rules that decide no segment are other ones now", 0.0)


def applied_of(state: Mapping[str, Any], name: str = "policy") -> AppliedPolicy | None:
    """The policy that was applied last to a shard with this state; None: none was."""
    found = state.get(name)
    return AppliedPolicy(*found) if found else None


def in_force(founding: Founding, policy: Policy) -> Policy:
    """A reader's own policy with the rules that the installation goes by: no file of a reader decides on segments.

    Raises ValueError for rules that this version of the program does not know.
    """
    return Policy.of(founding.policy, policy.canonical_rest())


def behind(founding: Founding, now: ShardsNow) -> list[int]:
    """The account shards that do not go by the policy that was applied last."""
    return [number for number, shard in enumerate(now.accounts) if applied_of(shard.state) != founding.applied]


async def apply_policy(
    redis: Redis,
    prefix: str,
    reader: Bounds,
    write: Callable[[int, bytes], Awaitable[object]],
    asked: Policy,
    *,
    is_silent: bool,
) -> AppliedPolicy:
    """Apply a policy to an installation: note it, then `write` it into each partition of the ticks.

    May be repeated after any error, with the same policy: then it completes what was begun. Returns once everything is
    written; the shards follow. Raises CannotApply, NoInstallation, KafkaError, RedisError.
    """
    founding = await require_founding(redis, prefix)
    now = await look(redis, prefix, founding.partitions)
    taken = {applied for shard in (*now.accounts, *now.ranking) if (applied := applied_of(shard.state))}
    newest = max(taken, default=None)
    if newest is not None and newest.number > founding.number:
        founding = await note_applied(redis, prefix, newest) or founding  # the store went back, and the shards did not
    applied = founding.applied
    if not (applied and asked.hash == applied.policy_hash and behind(founding, now) and _is_next(applied, taken)):
        applied = _new_application(founding, now, taken, asked, is_silent=is_silent)
        noted = await note_applied(redis, prefix, applied, founding.rest)
        if noted is None or noted.applied != applied:
            raise CannotApply("another policy was applied at the same moment: look at it, then try again")
    await note_rest(redis, prefix, asked.canonical_rest(), asked.risk_hash, asked.classification_hash)
    numbers = range(founding.partitions)
    bounds = await reader.bounds([(topic, number) for topic in EVENT_TOPICS for number in numbers])
    for number in numbers:
        ends = {str(topic): bounds[topic, number].end for topic in EVENT_TOPICS}
        await write(number, encode_switch(PolicySwitch(applied, ends)))
    return applied


def _is_next(applied: AppliedPolicy, taken: Iterable[AppliedPolicy]) -> bool:
    """Whether it can follow what the shards have taken: none of them has another one under its number."""
    return all(other == applied or other.number < applied.number for other in taken)


def _new_application(
    founding: Founding, now: ShardsNow, taken: Iterable[AppliedPolicy], asked: Policy, *, is_silent: bool
) -> AppliedPolicy:
    """Raises CannotApply."""
    if asked.hash == founding.policy_hash and not behind(founding, now):
        raise CannotApply(
            "the installation goes by these rules already; what decides no segment a worker takes over at its start"
        )
    if now.missing or not all(shard.state.get("mode") for shard in now.accounts):
        raise CannotApply(now.missing or "the state has no time yet: no account has a segment before the first tick")
    problems: dict[str, None] = {}
    for canonical in sorted({founding.policy, *(applied.policy for applied in taken)}):
        try:
            present = Policy.of(canonical, asked.canonical_rest())
        except ValueError:
            raise CannotApply("the state goes by a policy that this version of the program does not know") from None
        problems |= dict.fromkeys(refusals(present, asked))
    if problems:
        raise CannotApply(f"this takes a new state, worked out from the log: {'; '.join(problems)}")
    return AppliedPolicy(founding.number + 1, asked.canonical(), asked.hash, is_silent, asked.risk_hash)
