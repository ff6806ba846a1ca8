"""Apache Kafka and Redis as they run in production, for the tests and benchmarks that need them.

Both keep their directory and their port over `stop`, `kill`, `pause` and any further `start`: a client sees a
server that went away and came back.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from streams.server_process import LOOPBACK, ServerProcess, free_port, kafka_answers, redis_answers

KAFKA_VERSION = "4.2.2"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>resegment</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

_KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "message.max.bytes": "10485760",
    # One broker: nothing to replicate to.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Few of what nobody needs many of here: each is a directory and open files.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
    # No waiting for members that do not come, short sessions allowed, a restarted broker let in again soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Retention and compaction act while a test waits, on topics whose segments are short.
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.cleaner.backoff.ms": "500",
}


class MissingPrerequisite(Exception):
    """A program that these servers need is not on this machine. The message names it and how to get it."""


class _Server:
    """A server process in a temporary directory, removed with everything in it at the end of the context."""

    _process: ServerProcess

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # The log stays: the error names it.
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        shutil.rmtree(self._process.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError if it is not started."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server printed, over all its starts."""
        return self._process.log

    def start(self) -> None:
        """Starts the server on the data it has, and returns when it answers. Raises ServerFailed."""
        self._process.start()

    def stop(self) -> None:
        """Lets the server leave cleanly, and waits for it."""
        self._process.stop()

    def kill(self) -> None:
        """kill -9, and waits."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()


class KafkaServer(_Server):
    """One node of Apache Kafka, broker and controller in one.

    with KafkaServer() as kafka:
        print(kafka.address)

    `settings` are lines of server.properties that win over the ones above.
    """

    protocol = "PLAINTEXT"
    """Of the listener for clients."""
    format_arguments: Sequence[str] = ()
    """What else is said when the storage is formatted."""

    def __init__(self, settings: Mapping[str, str] | None = None, *, heap: str = "512m") -> None:
        """Gets the jars, by Maven, the first time. Raises MissingPrerequisite without Java or Maven."""
        java = program("java", "Java 17 or newer (Debian: default-jdk-headless)")
        class_path = f"{kafka_jars()}/*"
        directory = Path(tempfile.mkdtemp(prefix="resegment-kafka-"))
        port, controller_port = free_port(), free_port()
        cluster_id = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        properties = {
            **_KAFKA_SETTINGS,
            "listeners": f"{self.protocol}://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
            "log.dirs": str(directory / "data"),
            **(settings or {}),
        }
        self._properties = directory / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        (directory / "tmp").mkdir()
        self._java = [
            java,
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={directory / 'tmp'}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            class_path,
        ]
        self._cluster_id = cluster_id
        self._formatted = False
        self._process = ServerProcess(
            [*self._java, "kafka.Kafka", str(self._properties)],
            directory=directory,
            port=port,
            answers=partial(self.answers, port, cluster_id),
            ready_s=90,
        )

    def answers(self, port: int, cluster_id: str) -> bool:
        """Whether the broker of this cluster is ready on this port."""
        return kafka_answers(port, cluster_id)

    @property
    def address(self) -> str:
        """The bootstrap server: "host:port"."""
        return f"{LOOPBACK}:{self._process.port}"

    def start(self) -> None:
        """As every server's; the first start formats the storage."""
        if not self._formatted:
            self._format()
            self._formatted = True
        super().start()

    def _format(self) -> None:
        # with "=": the id may begin with a hyphen
        tool = ["kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={self._cluster_id}"]
        _run([*self._java, *tool, "--config", str(self._properties), *self.format_arguments])


class RedisServer(_Server):
    """The redis-server of this machine, without eviction.

    with RedisServer(append_only=True) as redis:
        print(redis.url)
    """

    def __init__(
        self, *, append_only: bool = False, executable: str | None = None, settings: Sequence[str] = ()
    ) -> None:
        """`append_only` keeps the data over a restart, synced each second. Raises MissingPrerequisite.

        `executable`: another server than this machine's. `settings`: arguments that win over the ones below.
        """
        executable = executable or program("redis-server", "Redis 7 or newer (Debian: redis-server)")
        directory = Path(tempfile.mkdtemp(prefix="resegment-redis-"))
        port = free_port()
        command = [
            executable,
            *self.listening(port, directory),
            *("--bind", LOOPBACK),
            *("--dir", str(directory)),
            *("--save", ""),
            *("--appendonly", "yes" if append_only else "no"),
            *("--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *settings,
        ]
        self._process = ServerProcess(
            command,
            directory=directory,
            port=port,
            answers=partial(self.answers, port, directory),
            ready_s=30,
        )

    def listening(self, port: int, directory: Path) -> list[str]:
        """The arguments that say where and how it listens. What it needs for that may be put into its directory."""
        return ["--port", str(port)]

    def answers(self, port: int, directory: Path) -> bool:
        """Whether the server of this directory is ready on this port."""
        return redis_answers(port, directory)

    @property
    def address(self) -> str:
        """ "host:port"."""
        return f"{LOOPBACK}:{self._process.port}"

    @property
    def url(self) -> str:
        """The address: "redis://host:port/0"."""
        return f"redis://{self.address}/0"


class RedisCluster:
    """Three masters that share all slots, without replicas.

    with RedisCluster() as cluster:
        print(cluster.url)
    """

    def __init__(self, *, append_only: bool = False, executable: str | None = None) -> None:
        """As RedisServer's. Raises MissingPrerequisite."""
        self._append_only, self._executable = append_only, executable
        self._bus_ports: dict[RedisServer, int] = {}
        self.masters = [self._new_node() for _ in range(3)]
        self._owners: dict[int, RedisServer] = {}
        self._started = ExitStack()

    def new_node(self, settings: Sequence[str]) -> RedisServer:
        """One of them, with the arguments that make it one."""
        return RedisServer(append_only=self._append_only, executable=self._executable, settings=settings)

    def _new_node(self) -> RedisServer:
        port = free_port()
        node = self.new_node(
            [
                *("--cluster-enabled", "yes", "--cluster-port", str(port)),
                *("--cluster-node-timeout", "2000", "--cluster-announce-ip", LOOPBACK),
                *("--repl-diskless-sync-delay", "0"),
            ]
        )
        self._bus_ports[node] = port
        return node

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            for master in self.masters:
                starting.enter_context(master)
            self._join()
            self._started = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    @property
    def url(self) -> str:
        """The address: "redis+cluster://host:port,host:port,host:port"."""
        return f"redis+cluster://{','.join(master.address for master in self.masters)}"

    def command(self, master: RedisServer, *words: str | int) -> Any:
        """Say something to one of them, and return its answer, with text for bytes."""
        with Redis.from_url(master.url, decode_responses=True) as redis:
            return redis.execute_command(*words)

    def slot(self, key: str) -> int:
        """A key's slot."""
        return key_slot(key.encode())

    def owner(self, key: str) -> RedisServer:
        """Who has a key's slot."""
        return self._owners[self.slot(key)]

    def begin_move(self, key: str, to: RedisServer) -> None:
        """From now on a key's slot is on its way from its owner to another: who looks for a key that is not there any
        more is told to ask the other."""
        slot, source = self.slot(key), self.owner(key)
        self.command(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.command(source, "CLUSTER", "MYID"))
        self.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.command(to, "CLUSTER", "MYID"))

    def move_keys(self, key: str, to: RedisServer, *keys: str) -> None:
        """Some of the keys in a key's slot go there; without names all."""
        slot, source = self.slot(key), self.owner(key)
        if moved := keys or self.command(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            host, port = to.address.split(":")
            self.command(source, "MIGRATE", host, port, "", 0, 10_000, "KEYS", *moved)

    def end_move(self, key: str, to: RedisServer) -> None:
        """The slot belongs to the other now, and whoever looks elsewhere is told so."""
        slot, node = self.slot(key), self.command(to, "CLUSTER", "MYID")
        for master in sorted(self.masters, key=lambda master: master is not to):
            self.command(master, "CLUSTER", "SETSLOT", slot, "NODE", node)
        self._owners[slot] = to

    def another(self, than: RedisServer) -> RedisServer:
        """Not this one."""
        return next(master for master in self.masters if master is not than)

    def until_ok(self) -> None:
        """Return when each of them knows all, and that all slots are served."""
        for master in self.masters:
            while not {"cluster_state:ok", "cluster_known_nodes:3"} <= set(self._info(master)):
                time.sleep(0.01)

    def _info(self, master: RedisServer) -> list[str]:
        return str(self.command(master, "CLUSTER", "INFO")).splitlines()

    def _join(self) -> None:
        bounds = [0, 5461, 10923, REDIS_CLUSTER_HASH_SLOTS]
        for number, master in enumerate(self.masters):
            self.command(master, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self.command(master, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            self._owners |= dict.fromkeys(range(bounds[number], bounds[number + 1]), master)
        for master in self.masters[1:]:
            self._meet(master)
        self.until_ok()

    def _meet(self, node: RedisServer) -> None:
        host, port = node.address.split(":")
        self.command(self.masters[0], "CLUSTER", "MEET", host, port, self._bus_ports[node])

    def add_replica(self, master: RedisServer) -> RedisServer:
        """A new node that has what this master has, until the end of the context."""
        node = self._started.enter_context(self._new_node())
        self._meet(node)
        master_id = self.command(master, "CLUSTER", "MYID")
        while f"{master_id} {master.address}" not in str(self.command(node, "CLUSTER", "NODES")):
            time.sleep(0.01)
        self.command(node, "CLUSTER", "REPLICATE", master_id)
        while self.command(node, "INFO").get("master_link_status") != "up":
            time.sleep(0.01)
        # They hear of it from the node that it met. If that dies before, they never listen to it.
        node_id = self.command(node, "CLUSTER", "MYID")
        for other in self.masters:
            while not any(
                line.startswith(node_id) and f"slave {master_id}" in line
                for line in str(self.command(other, "CLUSTER", "NODES")).splitlines()
            ):
                time.sleep(0.01)
        # And it takes over only the slots that it has heard are its master's.
        while "cluster_state:ok" not in self._info(node):
            time.sleep(0.01)
        return node


def kafka_jars() -> Path:
    """The folder with the jars of Apache Kafka. As maven_jars."""
    return maven_jars(f"kafka-{KAFKA_VERSION}", _POM)


def maven_jars(name: str, pom: str) -> Path:
    """The folder with the jars that a pom depends on, filled by Maven if it is not there (5 to 20 s).

    `name` is the folder's, for this and no other pom. Raises MissingPrerequisite without Maven.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resegment"
    jars = cache / name
    if not jars.is_dir():
        maven = program("mvn", "Apache Maven (Debian: maven)")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-") as scratch:
            file = Path(scratch) / "pom.xml"
            file.write_text(pom)
            goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
            arguments = [f"-DoutputDirectory={scratch}/jars", "-DincludeScope=runtime"]
            _run([maven, "--quiet", "--batch-mode", "--file", str(file), goal, *arguments])
            try:
                (Path(scratch) / "jars").rename(jars)
            except OSError:
                # Another run was quicker; then its jars are there.
                if not jars.is_dir():
                    raise
    return jars


def program(name: str, what: str) -> str:
    """Its path. Raises MissingPrerequisite, saying what to install."""
    found = shutil.which(name)
    if found is None:
        raise MissingPrerequisite(f"{name} is not on the PATH: install {what}.")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
