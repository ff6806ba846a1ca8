"""A server as a child process: on a loopback port, ready when `start` returns, gone when this process is."""

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the ports that systems hand to outgoing connections (32768 and up on Linux, 49152 and up elsewhere): a
# client that keeps trying a dead port of that range may connect to itself, and the server can't come back.
_PORTS = range(20_000, 32_000)

# Reads its standard input to the end of a line: then all is in order. If the input ends without one, the
# process that held its other end is dead, however it died: take the server and its files along.
_GUARD = """
read -r _ || {
    kill -KILL "$1" 2>/dev/null
    rm -rf -- "$2" 2>/dev/null || { sleep 1; rm -rf -- "$2"; }
}
"""


class ServerFailed(Exception):
    """The server ended or stayed silent instead of getting ready.

    The message ends with the log's path, which is kept, and its last lines.
    """


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago.

    Raises OSError if 100 ports picked at random were all taken.
    """
    for _ in range(100):
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 20000 and 31999 on 127.0.0.1")


def kafka_answers(port: int, cluster_id: str) -> bool:
    """Whether the broker of this cluster answers on this loopback port, and counts itself as alive.

    The cluster id tells it from a broker that took the port first.
    """
    correlation_id = random.getrandbits(31)
    # Metadata, version 2, for no topic. By hand: asked every few milliseconds, before there is an event loop.
    request = struct.pack(">hhih9si", 3, 2, correlation_id, 9, b"resegment", 0)
    try:
        with _connected(port) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            size = int.from_bytes(_read(connection, 4), "big")
            answer = _read(connection, size)
    except OSError:
        return False
    answered_id, live_brokers = struct.unpack_from(">ii", answer)
    return bool(answered_id == correlation_id and live_brokers > 0 and cluster_id.encode() in answer)


def redis_answers(port: int, directory: Path) -> bool:
    """Whether the Redis or Valkey of this directory answers on this loopback port and has loaded its data.

    The directory tells it from a server that took the port first.
    """
    path = os.fsencode(directory.resolve())
    expected = b"+PONG\r\n*2\r\n$3\r\ndir\r\n$%d\r\n%s\r\n" % (len(path), path)
    try:
        with _connected(port) as connection:
            connection.sendall(b"PING\r\nCONFIG GET dir\r\n")
            return _read(connection, len(expected)) == expected
    except OSError:
        return False


def _connected(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=1)


def _read(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises OSError if the connection ends or is silent for a second first."""
    read = b""
    while len(read) < size:
        received = connection.recv(size - len(read))
        if not received:
            raise ConnectionResetError("closed in the middle of an answer")
        read += received
    return read


class ServerProcess:
    """One server, its directory and its port. Both stay the same however often it is started again.

    The server gets its own session, so that Ctrl-C reaches this process alone, which may need the server to
    drain. A guard process ends the server and removes `directory` when this process dies without `stop`, even
    by kill -9.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        port: int,
        answers: Callable[[], bool],
        ready_s: float,
    ) -> None:
        """`answers` says whether this server, no other, is ready on `port`, within `ready_s` seconds."""
        self.directory = directory
        self.port = port
        self._command = list(command)
        self._answers = answers
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server wrote to its standard output and error, over all its starts."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError if it is not started."""
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} is not started")
        return self._process.pid

    def start(self) -> None:
        """Starts the server and returns once it answers. Raises ServerFailed if it does not, and kills it."""
        if self._process is not None:
            raise RuntimeError(f"{self._command[0]} is started already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self, grace_s: float = 20) -> None:
        """Asks the server to leave, kills it after `grace_s` seconds. Does nothing if it is not started."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """Ends the server at once, as kill -9 does, and waits. Does nothing if it is not started."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        self._dismiss_guard()

    def pause(self) -> None:
        """Freezes the server: its connections stay open, silent. Raises RuntimeError if it is not started."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Wakes a paused server up. Raises RuntimeError if it is not started."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} is not started")
        self._process.send_signal(number)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._ready_s
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerFailed(self._failure(f"ended with status {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise ServerFailed(self._failure(f"did not answer within {self._ready_s:g} s"))
            time.sleep(0.01)

    def _failure(self, what: str) -> str:
        last_lines = self.log.read_text(errors="replace").splitlines()[-5:]
        return "\n".join([f"{self._command[0]} {what}. Its log: {self.log}", *last_lines])

    def _dismiss_guard(self) -> None:
        assert self._guard is not None
        self._guard.communicate(b"all is in order\n")
        self._guard = None
