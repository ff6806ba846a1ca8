"""`resegment dev`."""

import asyncio
from pathlib import Path

from streams.cli.console import err, out
from streams.cli.local import Local, local_installation
from streams.cli.running import policy_path

CHECK_SECONDS = 0.5


async def run_dev(*, policy: Path | None) -> None:
    """Run an installation until Ctrl-C. Raises CommandFailed when the worker ends."""
    err.print("starting a broker, a store and a worker ...")
    async with local_installation(clock="wall", policy=policy_path(policy), worker_log_shown=True) as local:
        _introduce(local)
        while True:
            local.worker.check()
            await asyncio.sleep(CHECK_SECONDS)


def _introduce(local: Local) -> None:
    settings = local.settings
    out.print(f"""
broker  {settings.kafka_bootstrap_servers}   (Kafka protocol, in memory)
store   {settings.redis_url.get_secret_value()}   (Redis protocol, in memory)

In another terminal:

export RESEGMENT_KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}
export RESEGMENT_KAFKA_TRANSACTIONS=false
export RESEGMENT_REDIS_URL={settings.redis_url.get_secret_value()}
resegment watch &
resegment send signup acme --name "Acme Inc."
resegment send purchase acme 1250.00
resegment explain acme

Ctrl-C ends it all; nothing is kept.
""")
