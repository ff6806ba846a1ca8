"""The Faust application that every role of the program is: reading batches, and ending where anything is wrong."""

import asyncio
from typing import Any

import faust

from streams import transport
from streams.settings import Settings
from streams.shard import CorruptState


def new_app(
    settings: Settings,
    group: str,
    assignor: type[transport.Assignor] = transport.Assignor,
) -> transport.App:
    """An application in a consumer group. Its agents, partitions and claims are for the caller to set."""
    credentials: dict[str, Any] = {}
    if settings.kafka_security_protocol != "PLAINTEXT":
        credentials["broker_credentials"] = _faust_credentials(settings)
    servers = ";".join(f"batches://{server}" for server in settings.kafka_bootstrap_servers.split(","))
    app = transport.App(
        group,
        broker=servers,
        broker_session_timeout=settings.kafka_session_timeout_seconds,
        broker_heartbeat_interval=settings.kafka_session_timeout_seconds / 4,
        broker_max_poll_records=settings.batch_records_max,
        broker_commit_interval=1.0,
        ConsumerScheduler=transport.BatchScheduler,
        PartitionAssignor=assignor,
        # the default restarts an agent whose body raised, and its lost batch would count as done
        agent_supervisor="mode.CrashingSupervisor",
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
        loghandlers=[],
        logging_config={"version": 1, "disable_existing_loggers": False},
        **credentials,
    )
    app.fetch_wait_ms = settings.fetch_wait_ms
    return app


class Failure:
    """What a role ends of: the first error that it is told, or else what its application crashed of."""

    def __init__(self) -> None:
        self._first: BaseException | None = None
        self._told = asyncio.Event()

    def tell(self, error: BaseException) -> None:
        """End of this error. Any but the first is ignored."""
        if self._first is None:
            self._first = error
            self._told.set()

    def of(self, app: transport.App) -> BaseException | None:
        """None: of nothing."""
        return self._first or app.crash_reason

    async def until_stopped(self, app: transport.App, stop: asyncio.Event) -> None:
        """Return when `stop` is set. Raises the failure, or what the application crashed of."""
        endings: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(app._crashed.wait()),
            asyncio.ensure_future(self._told.wait()),
        ]
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for ending in endings:
                ending.cancel()
        if self._first is not None:
            raise self._first
        if app._crashed.is_set():
            raise app.crash_reason or CorruptState("the stream processor crashed")


def _faust_credentials(settings: Settings) -> Any:
    if settings.kafka_security_protocol == "SSL":
        return faust.SSLCredentials(context=settings.ssl_context())
    arguments = settings.kafka_arguments()
    return faust.SASLCredentials(
        username=arguments["sasl_plain_username"],
        password=arguments["sasl_plain_password"],
        mechanism=arguments["sasl_mechanism"],
        ssl_context=arguments.get("ssl_context"),
    )
