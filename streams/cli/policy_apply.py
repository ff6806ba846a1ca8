"""`resegment policy apply`."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from segmentation.policy import load_policy
from state.founding import require_founding
from streams.applying import applied_of, apply_policy, behind
from streams.cli.console import escape, out, print_json
from streams.cli.running import connected, policy_of_state, read_settings
from streams.rest import look
from streams.sending import EventWriter
from streams.settings import Settings
from streams.topics import Topic

NO_PROGRESS_SECONDS = 20.0
"""After so long without any it says what it waits for: perhaps no worker runs."""
POLL_SECONDS = 0.2


async def run_policy_apply(file: Path, *, is_silent: bool, as_json: bool) -> None:
    """Apply a policy and say when it is in force. Raises PolicyError, CannotApply, NoInstallation."""
    asked = load_policy(file)
    settings = read_settings()
    async with connected(settings) as (redis, reader), EventWriter(settings) as writer:

        async def write(number: int, value: bytes) -> None:
            await writer.write(Topic.TICKS, None, value, partition=number)
            await writer.flush()

        before = policy_of_state(await require_founding(redis, settings.redis_prefix))
        applied = await apply_policy(redis, settings.redis_prefix, reader, write, asked, is_silent=is_silent)
        differences = asked.field_differences(before.canonical())
        if not as_json:
            out.print(f"policy {escape(asked.version)} is applied, as number {applied.number}")
            for difference in differences:
                out.print(f"  {escape(str(difference))}")
        awaited = await _awaited(redis, settings)
    if as_json:
        print_json(
            {
                "policy": {"version": asked.version, "hash": asked.hash},
                "number": applied.number,
                "silent": applied.is_silent,
                "fields": [difference._asdict() for difference in differences],
                "in_force": awaited is None,
            }
        )
        return
    if awaited is None:
        told = "with the mode silent, which nobody is to act upon" if applied.is_silent else "live"
        out.print(f"it is in force; who moved is told {told}, with the cause policy_changed")
    else:
        out.print(f"it is not in force yet: {awaited}. Workers take it up when they run; no need to apply it again")
    out.print("from now on a worker starts with this policy only: put the file where theirs is")


async def _awaited(redis: Redis, settings: Settings) -> str | None:
    """Wait until the policy is in force, or nothing comes nearer to it: then what is missing, in words."""
    clock = asyncio.get_running_loop().time
    last, since = "", clock()
    while (reason := await _missing(redis, settings)) is not None:
        if reason != last:
            last, since = reason, clock()
        if clock() - since > NO_PROGRESS_SECONDS:
            return reason
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _missing(redis: Redis, settings: Settings) -> str | None:
    founding = await require_founding(redis, settings.redis_prefix)
    now = await look(redis, settings.redis_prefix, founding.partitions)
    if late := behind(founding, now):
        return f"account shards {', '.join(map(str, late))} have not taken it"
    if reason := now.switching():
        return reason
    deaf = [
        str(number)
        for number, shard in enumerate(now.ranking)
        if shard.state.get("sources") and applied_of(shard.state) != founding.applied
    ]
    return f"ranking shards {', '.join(deaf)} have not heard of it" if deaf else None
