"""Who receives alerts."""

from collections.abc import AsyncIterator, Iterator

import pytest

from streams.embedded import Embedded
from tests.alerting import World, world_at_work
from tests.receivers import Mailbox, Webhook, mailbox, webhook


@pytest.fixture
def box() -> Iterator[Mailbox]:
    """A mail server."""
    with mailbox() as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """A server of HTTP."""
    with webhook() as running:
        yield running


@pytest.fixture
async def world(embedded: Embedded, box: Mailbox, hook: Webhook) -> AsyncIterator[World]:
    """An installation at work, with receivers."""
    async with world_at_work(embedded, box, hook) as running:
        yield running
