"""An installation with a worker that ticks, receivers of alerts, and the role that tells them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from segmentation.policy import Policy, parse_policy
from segmentation.segments import Segment
from state.client import connect
from state.keys import LedgerName
from state.shard_store import ShardStore
from streams.alerting.reading import read_log
from streams.alerting.role import AlertsRole
from streams.settings import Settings
from streams.topics import Topic
from tests.pipeline import Installation, Sent, environment_of, event, purchase, until
from tests.receivers import Mailbox, Webhook

PARTITIONS = 2
ALERTS = """
[people.kim]
address = "kim@example.com"

[calm]
grace_minutes = 0
an_hour_max = 1000

[[alerts]]
name = "first"
on = "move"
direction = ["advanced"]
to = "owner"
address = "desk@example.com"

[[alerts]]
name = "chat"
on = "move"
direction = ["advanced"]
address = "room"
channel = "chat"
"""


def policy_text(alerts: str = ALERTS) -> str:
    """The default policy, and who is told of what."""
    return files("segmentation").joinpath("default_policy.toml").read_text() + alerts


def policy_of(alerts: str = ALERTS) -> Policy:
    """The same as a policy."""
    return parse_policy(policy_text(alerts), "policy.toml")


def now() -> datetime:
    """By the wall clock, as workers tick."""
    return datetime.now(UTC)


class Alerts:
    """The role in this process."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.redis = connect(settings.redis_url.get_secret_value())
        self.role = AlertsRole(settings, policy, self.redis)
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(self.role.run(self._stop))

    async def claimed(self) -> None:
        """Return when it has the ledger."""

        async def claimed() -> bool:
            if self.task.done():
                self.task.result()
            return self.role.shard is not None and self.role.shard.owned

        await until(claimed, "a claimed ledger")

    async def stop(self) -> None:
        """Let it leave. Raises what it died of."""
        self._stop.set()
        try:
            await self.task
        finally:
            await self.redis.aclose()


class World:
    """An installation with a worker that ticks, and receivers."""

    def __init__(self, installation: Installation, box: Mailbox, hook: Webhook) -> None:
        self.installation = installation
        self.box = box
        self.hook = hook
        urls = {"mail": SecretStr(box.url), "chat": SecretStr(hook.url)}
        self.settings = installation.settings.model_copy(
            update={"alerts_url": urls, "alerts_retry_seconds": 0.05, "alerts_send_seconds": 5.0}
        )

    @asynccontextmanager
    async def alerts(self, policy: Policy | None = None, **changes: Any) -> AsyncIterator[Alerts]:
        """The role, until the end of the context, where it must leave without an error."""
        running = Alerts(self.settings.model_copy(update=changes), policy or self.installation.policy)
        try:
            await running.claimed()
            yield running
        finally:
            await running.stop()

    async def buy(self, *accounts: str) -> None:
        """First purchases: each makes an account advance from prospect to new start."""
        await self.installation.send(*(purchase(account, f"p-{account}", now(), 1_000) for account in accounts))

    async def sign_up(self, *accounts: str, **attributes: str) -> None:
        """Accounts appear."""
        await self.installation.send(
            *(
                event("signup", account, f"s-{account}", now(), name=f"The {account}", attributes=attributes)
                for account in accounts
            )
        )
        await self.installation.until_told(
            lambda told: {change.account for change in told} >= {*accounts}, "all signed up"
        )

    async def announce(self, *changes: Sent) -> None:
        """Changes of segment, as if the ranking stage had found them."""
        await self.installation.send(*changes)

    async def received(self, count: int) -> None:
        """Return when so many mails have arrived."""
        await until(count_is(self.box, count), f"{count} mails")

    def variables(self, directory: Path, alerts: str = ALERTS) -> dict[str, str]:
        """The environment of a command."""
        policy = directory / "policy.toml"
        policy.write_text(policy_text(alerts))
        return environment_of(self.settings) | {
            "RESEGMENT_POLICY": str(policy),
            "RESEGMENT_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        }

    @property
    def store(self) -> ShardStore:
        """The ledger's."""
        return ShardStore(self.installation.redis, self.settings.redis_prefix, LedgerName.ALERTS, 0)

    async def log(self) -> list[dict[str, Any]]:
        """What `resegment alerts log` has, the oldest first."""
        return [entry async for entry in read_log(self.store)]


def change(account: str, sequence: int, before: str, after: str, *, mode: str = "live") -> Sent:
    """A change of segment between tiers."""
    tiers = ["key", "enterprise", "commercial"]
    document = {
        "account_id": account,
        "population": "all",
        "sequence": sequence,
        "previous_segment": before,
        "current_segment": after,
        "direction": "down" if tiers.index(after) > tiers.index(before) else "up",
        "cause": {"kind": "boundary_moved", "event_id": None, "own_change_minor": 0, "cutoff_change_minor": 4_300},
        "lapsed": False,
        "rolling_revenue_minor": 512_000,
        "position_revenue": 0.32,
        "position_accounts": 0.08,
        "cutoffs_minor": {"key": 514_300, "enterprise": 98_000},
        "to_next_tier_up_minor": 31_400,
        "to_next_tier_down_minor": 400_120,
        "policy_version": "1",
        "mode": mode,
        "effective_at": now().isoformat(),
        "recorded_at": now().isoformat(),
        "playbook": {**Policy.default().playbook(Segment(after)).document(), "needs": []},
    }
    return Sent(Topic.SEGMENT_CHANGES, account.encode(), json.dumps(document).encode())


def count_is(receiver: Mailbox | Webhook, count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many messages have arrived."""

    async def reached() -> bool:
        return len(receiver.messages) >= count

    return reached


@asynccontextmanager
async def world_at_work(servers: Any, box: Mailbox, hook: Webhook, **changes: Any) -> AsyncIterator[World]:
    """One whose worker has its shards."""
    fields: Mapping[str, Any] = {"clock": "wall", "tick_seconds": 0.1, **changes}
    async with (
        Installation(servers, policy=policy_of(), partitions=PARTITIONS, **fields) as installation,
        installation.worker() as running,
    ):
        await running.claimed()
        yield World(installation, box, hook)
