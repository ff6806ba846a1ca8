"""The obvious program: one Faust agent that validates, adds up in Redis and sends on, event by event; no tiers."""

import os
import tempfile

import faust
import orjson
import redis.asyncio as redis
from pydantic import AwareDatetime, BaseModel

store = redis.Redis.from_url(os.environ["RESEGMENT_REDIS_URL"])
app = faust.App(
    "plain-agent",
    broker=f"aiokafka://{os.environ['RESEGMENT_KAFKA_BOOTSTRAP_SERVERS']}",
    web_enabled=False,
    store="memory://",
    datadir=tempfile.mkdtemp(prefix="resegment-plain-agent-"),
    topic_disable_leader=True,
)
prefix = os.environ["RESEGMENT_TOPIC_PREFIX"]
purchases = app.topic(f"{prefix}purchases", value_serializer="raw")
totals = app.topic(f"{prefix}segment-changes", value_serializer="raw")


class Purchase(BaseModel):
    """A purchase."""

    event_id: str
    account_id: str
    occurred_at: AwareDatetime
    amount_minor: int
    currency: str


@app.agent(purchases)
async def add_up(stream: faust.StreamT[bytes]) -> None:
    """Keep each account's total."""
    async for value in stream:
        purchase = Purchase.model_validate_json(value)
        key = f"plain:{purchase.account_id}"
        document = orjson.loads(await store.get(key) or b'{"total": 0, "count": 0}')
        document["total"] += purchase.amount_minor
        document["count"] += 1
        encoded = orjson.dumps(document)
        await store.set(key, encoded)
        await store.incr("plain:events")
        await totals.send(key=purchase.account_id.encode(), value=encoded)


if __name__ == "__main__":
    app.main()
