"""How a role fares, for whoever looks: /metrics for Prometheus, /healthz and /readyz for whoever starts and stops it.

Nothing is counted for it: a role has its figures anyway, and they are looked at when somebody asks. While nobody does,
it costs nothing. It is served by the role's own event loop: an answer is also the proof that this goes round.

    async with listening("127.0.0.1:9464", source):
        ...
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from streams.settings import host_and_port

SHUTDOWN_SECONDS = 1.0
"""How long a role that ends waits for answers under way."""


class Figure(NamedTuple):
    """A number that a role has, or one for each value of its labels. It never falls where the name ends in `_total`."""

    name: str
    text: str
    """What it says, and in which unit."""
    labels: tuple[str, ...] = ()


Sample = tuple[Figure, tuple[str, ...], float]
"""A figure, the values of its labels in their order, and its value."""


class Unready(NamedTuple):
    """Why nobody should count on a role just now."""

    reason: str
    """One of the few words that the role documents."""
    shard: str
    """Which one; empty: it is about the whole role."""
    text: str


class Look(NamedTuple):
    """What one look at a role found."""

    samples: Sequence[Sample]
    unready: Sequence[Unready]
    """Empty: it is ready."""


class Source(Protocol):
    """A role that can be looked at."""

    @property
    def role(self) -> str:
        """Its command: "worker"."""

    @property
    def figures(self) -> Sequence[Figure]:
        """All that a look may find."""

    @property
    def failure(self) -> str | None:
        """What the role has failed of, and will end of; None: of nothing."""

    async def look(self) -> Look:
        """How it fares now. Takes seconds at most, whatever cannot be reached, and raises nothing for that."""


BUILD_INFO = Figure("resegment_build_info", "1, with the program's version and the role", ("role", "version"))
READY = Figure("resegment_ready", "1 if the role is ready, as /readyz says")
UNREADY = Figure(
    "resegment_unready", "How often each reason not to be ready was found; none where it was not", ("reason",)
)
FIGURES = (BUILD_INFO, READY, UNREADY)
"""Of every role."""


@asynccontextmanager
async def listening(address: str, source: Source) -> AsyncIterator[None]:
    """Answer for the role until the end of the context; with an empty address open no port. Raises OSError."""
    if not address:
        yield
        return
    runner = web.AppRunner(_Answers(source).application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *host_and_port(address)).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(error.errno, f"cannot listen on {address} (RESEGMENT_MONITORING_ADDRESS): {why}") from None
        yield
    finally:
        await runner.cleanup()


class _Answers:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._turns = asyncio.Lock()
        """However many ask at once: one look at a time."""

    def application(self) -> web.Application:
        application = web.Application()
        for path, answer in (("/metrics", self.metrics), ("/healthz", self.healthz), ("/readyz", self.readyz)):
            application.router.add_get(path, answer)
        return application

    async def metrics(self, _request: web.Request) -> web.Response:
        look = await self._look()
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Families([*self._of_role(look), *look.samples]))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _request: web.Request) -> web.Response:
        failure = self._source.failure
        found = {"healthy": failure is None} | ({"failure": failure} if failure else {})
        return web.json_response(found, status=200 if failure is None else 503)

    async def readyz(self, _request: web.Request) -> web.Response:
        unready = (await self._look()).unready
        found = {"ready": not unready, "reasons": [why._asdict() for why in unready]}
        return web.json_response(found, status=503 if unready else 200)

    async def _look(self) -> Look:
        async with self._turns:
            return await self._source.look()

    def _of_role(self, look: Look) -> Iterator[Sample]:
        yield BUILD_INFO, (self._source.role, program_version()), 1
        yield READY, (), not look.unready
        reasons = [why.reason for why in look.unready]
        for reason in dict.fromkeys(reasons):
            yield UNREADY, (reason,), reasons.count(reason)


class _Families(Collector):
    """The samples in the shape that the library writes out."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for (name, text, labels), values, value in samples:
            if name not in self._families:
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                self._families[name] = kind(name, text, labels=labels)
            self._families[name].add_metric(values, value)

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        return self._families.values()


def program_version() -> str:
    """As it was installed; "unknown" where it runs from its source."""
    try:
        return version("resegment")
    except PackageNotFoundError:
        return "unknown"
