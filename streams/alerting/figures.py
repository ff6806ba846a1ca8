"""What there is to see of `resegment alerts`: whether it has the ledger, its lag, its clock, and what is to be sent."""

import asyncio

from streams.alerting.ledger import ABOUT_ACCOUNTS
from streams.alerting.role import AlertsRole
from streams.monitoring import Figure, Look, Sample, Unready
from streams.topics import place_name
from streams.worker_figures import BROKER_UP, COMMITS, LAG, LAST_COMMIT, STORE_UP, answer_of

ACTIVE = Figure("resegment_alerts_active", "1 if this process sends the alerts; 0: it begins, or stands by")
MESSAGES = Figure("resegment_alerts_messages", "Messages that no channel has taken yet")
UNDELIVERED = Figure("resegment_alerts_undelivered", "Messages that were given up, until somebody decides about them")

_SHARD = ("alerts", "0")


class AlertsFigures:
    """The role, as monitoring looks at it."""

    role = "alerts"
    figures = (BROKER_UP, STORE_UP, LAG, LAST_COMMIT, COMMITS, ACTIVE, MESSAGES, UNDELIVERED)

    def __init__(self, role: AlertsRole) -> None:
        self._role = role

    @property
    def failure(self) -> str | None:
        """What the role will end of: its kind alone, as an error may name an account."""
        error = self._role.failure
        return None if error is None else type(error).__name__

    async def look(self) -> Look:
        """O(partitions), one question to the broker, and two to the store."""
        role = self._role
        if not role.partitions:
            return Look([], [Unready("starting", "", "it looks whether topics, store and policy fit together")])
        places = [(topic, number) for topic in ABOUT_ACCOUNTS for number in range(role.partitions)]
        bounds, pong = await asyncio.gather(answer_of(role.reader.bounds(places)), answer_of(role.redis.ping()))
        samples: list[Sample] = [(BROKER_UP, (), bounds is not None), (STORE_UP, (), pong is not None)]
        unready = []
        if bounds is None:
            unready.append(Unready("broker_unreachable", "", "the broker does not say where the log ends"))
        if pong is None:
            unready.append(Unready("store_unreachable", "", "the store does not answer"))
        shard = role.shard
        if shard is None or not shard.owned:
            if not role.stands_by:
                unready.append(Unready("shard_missing", "the ledger of alerts", "it is not claimed yet"))
            return Look([*samples, (ACTIVE, (), 0)], unready)
        samples += [(ACTIVE, (), 1), (MESSAGES, (), len(shard.messages))]
        if (undelivered := await answer_of(shard.store.count("undelivered"))) is not None:
            samples.append((UNDELIVERED, (), undelivered))
        samples += [(LAST_COMMIT, _SHARD, (shard.committed_at_us or 0) / 1e6), (COMMITS, _SHARD, shard.store.commits)]
        if bounds is not None:
            lags = dict.fromkeys(ABOUT_ACCOUNTS, 0)
            for (topic, number), bound in bounds.items():
                lags[topic] += max(0, bound.end - shard.progress[place_name(topic, number)])
            samples += [(LAG, (*_SHARD, topic), lag) for topic, lag in lags.items()]
        return Look(samples, unready)
