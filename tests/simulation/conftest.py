"""What schedules set for the whole process is put back."""

from collections.abc import Iterator

import pytest

from state import shard_store
from streams import ranking, worklists


@pytest.fixture(autouse=True)
def limits_put_back() -> Iterator[None]:
    """Schedules choose how much is read and taken at once."""
    records = shard_store.OUTBOX_READ_MAX
    standings, changes = ranking.STANDINGS_AT_ONCE, ranking.CHANGES_AT_ONCE
    counted, placed = worklists.COUNTED_AT_ONCE, worklists.PLACED_AT_ONCE
    yield
    shard_store.OUTBOX_READ_MAX = records
    ranking.STANDINGS_AT_ONCE, ranking.CHANGES_AT_ONCE = standings, changes
    worklists.COUNTED_AT_ONCE, worklists.PLACED_AT_ONCE = counted, placed
