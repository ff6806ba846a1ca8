"""`resegment policy apply`."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from segmentation.policy import load_policy
from state.founding import AppliedPolicy, Founding, read_founding
from streams.applying import apply_policy, behind
from streams.cli.console import escape, out, print_json
from streams.cli.running import connected, policy_of_state, read_settings
from streams.rest import look
from streams.sending import EventWriter
from streams.settings import Settings
from streams.snapshot import NoInstallation
from streams.topics import Topic

IN_FORCE_SECONDS = 60.0
"""How long to wait until it is: a million accounts take a minute."""
POLL_SECONDS = 0.2


async def run_policy_apply(file: Path, *, is_silent: bool, as_json: bool) -> None:
    """Apply a policy and say when it is in force. Raises PolicyError, CannotApply, NoInstallation."""
    asked = load_policy(file)
    settings = read_settings()
    async with connected(settings) as (redis, reader), EventWriter(settings) as writer:

        async def write(number: int, value: bytes) -> None:
            await writer.write(Topic.TICKS, None, value, partition=number)
            await writer.flush()

        before = policy_of_state(await _founding(redis, settings))
        applied = await apply_policy(redis, settings.redis_prefix, reader, write, asked, is_silent=is_silent)
        differences = asked.field_differences(before.canonical())
        if not as_json:
            out.print(f"policy {escape(asked.version)} is applied, as number {applied.number}")
            for difference in differences:
                out.print(f"  {escape(str(difference))}")
        is_in_force = await _is_in_force(redis, settings, applied)
    if as_json:
        print_json(
            {
                "policy": {"version": asked.version, "hash": asked.hash},
                "number": applied.number,
                "silent": applied.is_silent,
                "fields": [difference._asdict() for difference in differences],
                "in_force": is_in_force,
            }
        )
        return
    if is_in_force:
        told = "with the mode silent, which nobody is to act upon" if applied.is_silent else "live"
        out.print(f"it is in force; who moved is told {told}, with the cause policy_changed")
    else:
        out.print("it is not in force yet: workers take it up when they run, however late; no need to apply it again")
    out.print("from now on a worker starts with this policy only: put the file where theirs is")


async def _founding(redis: Redis, settings: Settings) -> Founding:
    founding = await read_founding(redis, settings.redis_prefix)
    if founding is None:
        raise NoInstallation(f"the store holds no installation under {settings.redis_prefix!r}")
    return founding


async def _is_in_force(redis: Redis, settings: Settings, applied: AppliedPolicy) -> bool:
    """Wait for it, but not for ever."""
    clock = asyncio.get_running_loop().time
    until = clock() + IN_FORCE_SECONDS
    while True:
        founding = await _founding(redis, settings)
        now = await look(redis, settings.redis_prefix, founding.partitions)
        if not behind(founding, now) and now.switching() is None and founding.number >= applied.number:
            return True
        if clock() > until:
            return False
        await asyncio.sleep(POLL_SECONDS)
