"""Looking into the ledger of alerts from outside: nothing is claimed, and nothing changed."""

from collections.abc import AsyncIterator
from typing import Any

from jiter import from_json

from state.shard_store import ShardStore
from streams.alerting.ledger import Message


async def read_log(store: ShardStore) -> AsyncIterator[dict[str, Any]]:
    """What became of alerts, and why, the oldest first. O(all that is kept)."""
    found = {number: value async for number, value in store.scan("decisions")}
    for number in sorted(found):
        yield from_json(found[number])


async def read_messages(store: ShardStore, name: str) -> list[Message]:
    """Those that wait (`messages`), or were given up (`undelivered`), the oldest first."""
    found = [Message.of(from_json(value)) async for _, value in store.scan(name)]
    return sorted(found, key=lambda message: (message.handed_over_us, message.id))
