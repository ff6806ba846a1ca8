"""The purchases of a log, and what else happened, by account: from a replay file, or from the topic."""

from collections import Counter
from collections.abc import Iterable, Mapping

from segmentation.buying import BuyingHistory, buying_history
from segmentation.events import MICROSECONDS_PER_DAY, Engagement, Purchase
from segmentation.policy import Policy
from streams.log import LogReader
from streams.replay import read_line
from streams.topics import Topic
from streams.wire import BadRecord, Decoder, EventKind

NO_TIMESTAMP_MS = -1
"""The lines of a file do not say when they were written, so none is too far ahead of that."""


class PurchaseLog:
    """Purchases and refunds, each once, in the base currency."""

    def __init__(self) -> None:
        self.accounts: dict[str, list[Purchase]] = {}
        self.engagements: dict[str, list[Engagement]] = {}
        """As they came, where they were asked for: an account takes each once."""
        self.last_day: int | None = None
        """The last day on which anything happened that the log tells of; None: nothing did."""
        self.duplicates = 0
        self.refused: Counter[str] = Counter()
        """How many records would be dead letters, by reason."""
        self._ids: set[tuple[str, str]] = set()

    def add(self, purchase: Purchase) -> None:
        """Take a purchase; one whose id its account has already is a duplicate. O(1)."""
        known = purchase.account_id, purchase.event_id
        if known in self._ids:
            self.duplicates += 1
            return
        self._ids.add(known)
        self.accounts.setdefault(purchase.account_id, []).append(purchase)
        self.saw(purchase.occurred_at_us)

    def add_engagement(self, engagement: Engagement) -> None:
        """Take an engagement. O(1)."""
        self.engagements.setdefault(engagement.account_id, []).append(engagement)
        self.saw(engagement.occurred_at_us)

    def saw(self, occurred_at_us: int) -> None:
        """Something happened then: the log reaches that far at least."""
        self.last_day = max(self.last_day or 0, occurred_at_us // MICROSECONDS_PER_DAY)

    def last_purchase_day(self) -> int | None:
        """The day of the last purchase or refund by when it occurred; None if there is none. O(n)."""
        return max((known_on(purchase) for events in self.accounts.values() for purchase in events), default=None)

    def known_at(self, day: int) -> dict[str, list[Purchase]]:
        """What was known when a day ended: the events with an `occurred_at` before its midnight, by account. O(n)."""
        known = {
            account_id: [purchase for purchase in events if known_on(purchase) <= day]
            for account_id, events in self.accounts.items()
        }
        return {account_id: events for account_id, events in known.items() if events}


def histories_at(known: Mapping[str, Iterable[Purchase]], day: int) -> dict[str, BuyingHistory]:
    """The histories, as of a day's end, of the accounts that have purchased by then."""
    found = {account_id: buying_history(events, day) for account_id, events in known.items()}
    return {account_id: history for account_id, history in found.items() if history is not None}


def read_file(lines: Iterable[bytes], policy: Policy, *, with_engagements: bool = False) -> PurchaseLog:
    """The purchases of a replay file: one event a line, a JSON object with its "type". About 10 us a line.

    Engagements are kept where they are asked for, some 300 bytes each; other events only say how far the log reaches.
    What a worker would not apply is counted and left out.
    """
    log, decoder = PurchaseLog(), Decoder(policy, partitions=1)
    for line in lines:
        payload = line.rstrip(b"\n")
        if not payload.strip():
            continue
        found = read_line(payload)
        if found.topic is Topic.PURCHASES:
            _take(log, decoder, "purchase", 0, NO_TIMESTAMP_MS, found.key, payload)
        elif found.topic is Topic.ENGAGEMENTS and with_engagements:
            _take(log, decoder, "engagement", 0, NO_TIMESTAMP_MS, found.key, payload)
        elif found.occurred_at_us is not None:
            log.saw(found.occurred_at_us)
    return log


async def read_topic(reader: LogReader, policy: Policy) -> tuple[PurchaseLog, list[int]]:
    """The purchases that the log holds, and the partitions of which it no longer holds the beginning.

    Raises KafkaError, TimeoutError.
    """
    partitions = reader.partition_count(Topic.PURCHASES)
    places = [(Topic.PURCHASES, number) for number in range(partitions)]
    bounds = await reader.bounds(places)
    log, decoder = PurchaseLog(), Decoder(policy, partitions=partitions)
    async for _, record in reader.read(dict.fromkeys(places, 0)):
        _take(log, decoder, "purchase", record.partition, record.timestamp, record.key, record.value)
    return log, [number for topic, number in places if bounds[topic, number].first]


def known_on(event: Purchase | Engagement) -> int:
    """The day on which it became known. A refund may belong to an earlier one."""
    return event.occurred_at_us // MICROSECONDS_PER_DAY


def _take(
    log: PurchaseLog,
    decoder: Decoder,
    kind: EventKind,
    partition: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
) -> None:
    try:
        event = decoder.decode(kind, partition, timestamp_ms, key, value)
    except BadRecord as error:
        log.refused[error.reason] += 1
        return
    if isinstance(event, Engagement):
        log.add_engagement(event)
    elif isinstance(event, Purchase):
        log.add(event)
