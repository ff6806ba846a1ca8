"""aiokafka on the fast event loop."""

import asyncio
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams.embedded import Embedded
from streams.event_loop import fast_loop


@pytest.mark.parametrize("factory", [fast_loop(), None], ids=["fast", "asyncio"])
def test_a_broken_connection_is_an_error_that_clients_recover_from(embedded: Embedded, factory: Any) -> None:
    """Whatever the loop says of a closed transport, the client hears of its connection, and makes another one."""

    async def broken() -> None:
        client = AIOKafkaClient(bootstrap_servers=embedded.kafka)
        await client.bootstrap()
        node = client.get_random_node()
        assert await client.ready(node)
        (connection,) = client._conns.values()
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # one turn of the loop: the transport is closed, and the reader has not heard of it
        with pytest.raises(KafkaConnectionError):
            await connection.send(MetadataRequest([]))
        assert await client.force_metadata_update()
        await client.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(broken())
