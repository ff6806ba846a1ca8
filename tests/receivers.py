"""Who receives alerts in tests: real servers of SMTP and HTTP on loopback, which can be made to misbehave."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from streams.server_process import LOOPBACK, free_port


class Received(NamedTuple):
    """A message as it arrived."""

    id: str
    """Its Message-ID, or the header that stands for it."""
    to: str
    subject: str
    body: str


class Mailbox:
    """An SMTP server. `answer` decides about each message: None takes it, a text is the answer instead."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self.attempts = 0
        self.answer: Callable[[str], str | None] = lambda to: None
        self.delay_seconds = 0.0
        self.after_taking: Callable[[], None] = lambda: None
        """Called when a message is taken, before the client hears of it."""
        self.port = free_port()

    @property
    def url(self) -> str:
        """The channel's URL, as Apprise takes it."""
        return f"mailto://{LOOPBACK}:{self.port}?from=alerts@example.com&to={{address}}&mode=insecure"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """A message has come."""
        self.attempts += 1
        await asyncio.sleep(self.delay_seconds)
        [to] = envelope.rcpt_tos
        answer = self.answer(to)
        if answer is not None:
            return answer
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content)
        payload = mail.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert len(mail.get_all("Message-ID", [])) == 1
        self.messages.append(
            Received(mail["Message-ID"], to, str(make_header(decode_header(mail["Subject"]))), payload.decode())
        )
        self.after_taking()
        return "250 taken"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A running one."""
    box = Mailbox()
    controller = Controller(box, hostname=LOOPBACK, port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Webhook:
    """An HTTP server for Apprise's json://. `status` is what it answers."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self.attempts = 0
        self.status = 200
        self.delay_seconds = 0.0
        self.is_half_closed = False
        """Takes the request in, and closes without an answer."""
        self.port = 0

    @property
    def url(self) -> str:
        """The channel's URL, as Apprise takes it."""
        return f"json://{LOOPBACK}:{self.port}/secret-path/{{address}}"


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A running one."""
    hook = Webhook()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.attempts += 1
            document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.is_half_closed:
                self.connection.shutdown(socket.SHUT_WR)
                return
            released.wait(hook.delay_seconds)
            if hook.status == 200:
                to = self.path.rpartition("/")[2]
                received = Received(self.headers["Idempotency-Key"], to, document["title"], document["message"])
                hook.messages.append(received)
            with suppress(OSError):
                self.send_response(hook.status)
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def dribbling_server() -> Iterator[int]:
    """The port of a server that greets with a byte every now and then, for ever: no time-out of a library ends that."""
    stop = threading.Event()

    def dribble(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while not stop.wait(0.1):
                connection.sendall(b"2")

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=dribble, args=(connection,), daemon=True).start()

    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
