"""How `resegment alerts` fares: whether it has the ledger, or stands by, and what is still to be told."""

from streams.alerting.figures import AlertsFigures
from streams.alerting.role import AlertsRole
from streams.monitoring import FIGURES, listening
from streams.server_process import free_port
from streams.topics import Topic
from tests.alerting import World
from tests.pipeline import until
from tests.streams.test_monitoring import Looker


async def test_who_sends_alerts_says_how_it_fares(world: World) -> None:
    """As a worker does, on a port of its own."""
    await world.sign_up("acme")
    async with world.alerts() as running:
        port = free_port()
        async with listening(str(port), AlertsFigures(running.role)):
            looker = Looker(port)
            await looker.until_ready()
            assert await looker.get("/healthz") == (200, {"healthy": True})
            await world.buy("acme")
            await world.received(1)

            async def told() -> dict[tuple[str, ...], float] | None:
                found = await looker.metrics()
                lag = found["resegment_input_lag_records", "0", "alerts", Topic.SEGMENT_CHANGES]
                return found if not lag and not found["resegment_alerts_messages",] else None

            found = await until(told, "nothing to do")
            assert found["resegment_alerts_active",] == found["resegment_ready",] == 1
            own = {figure.name for figure in (*AlertsFigures.figures, *FIGURES)} - {"resegment_unready"}
            assert {key[0] for key in found if key[0].startswith("resegment_")} == own


async def test_who_stands_by_is_ready(world: World) -> None:
    """Another process sends the alerts; one that has not begun is not ready."""
    role = AlertsRole(world.settings, world.installation.policy, world.installation.redis)
    figures = AlertsFigures(role)
    assert [why.reason for why in (await figures.look()).unready] == ["starting"]
    async with world.alerts() as running:
        role, shard = running.role, running.role.shard
        running.role.shard = None
        reasons = [why.reason for why in (await AlertsFigures(role).look()).unready]
        assert reasons == ["shard_missing"]
        role.stands_by = True
        assert not (await AlertsFigures(role).look()).unready
        role.shard, role.stands_by = shard, False
