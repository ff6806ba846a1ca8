"""Every setting of the program, read in one place: RESEGMENT_... variables of the environment."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What differs between installations. Rules are in the policy, not here."""

    model_config = SettingsConfigDict(
        env_prefix="RESEGMENT_",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a password
    )

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, comma separated."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_certificate_file: Path | None = None
    kafka_key_file: Path | None = None
    kafka_transactions: bool = True
    """False only for a broker without transactions, as the embedded one: one worker is the limit then."""
    kafka_group: str = "resegment"
    kafka_session_timeout_seconds: float = Field(10.0, ge=6.0, le=300.0)
    """How long a worker may be silent before its partitions go to another."""
    topic_prefix: str = ""
    """Before every topic's name."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """redis://user:password@host:port/db, rediss:// for TLS (with ?ssl_ca_certs=FILE), unix:// for a socket;
    redis+cluster://user:password@host:port,host:port for a cluster, rediss+cluster:// for one with TLS."""
    redis_prefix: str = Field("resegment", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Before every key."""

    policy: Path | None = None
    """The policy document; none: the default policy."""
    clock: Literal["wall", "replay"] = "wall"
    """wall: this worker ticks. replay: somebody replays a log and ticks with its time."""
    tick_seconds: float = Field(1.0, ge=0.05, le=60.0)

    fetch_wait_ms: int = Field(50, ge=1, le=1_000)
    """How long the broker waits for a record before it answers that there is none. One fetch for each broker is under
    way at a time, so idle partitions hold up a busy one for this long."""
    batch_records_max: int = Field(500, ge=1, le=50_000)
    """Records a poll brings at most."""
    cache_accounts: int = Field(200_000, ge=1_000)
    """Accounts that the account stage of one worker keeps in memory, about 1 KB each."""
    due_chunk_accounts: int = Field(200, ge=1, le=5_000)
    """Accounts done at once when time alone changes many: purchases wait no longer than for one chunk."""
    relay_interval_ms: int = Field(20, ge=0, le=1_000)
    """How long changes gather after others were published: a transaction costs the same for one as for a thousand."""
    outbox_records_max: int = Field(20_000, ge=100)
    """Outgoing records of one shard that may wait for the broker before the shard stops taking in more."""

    monitoring_address: str = ""
    """HOST:PORT, or PORT on 127.0.0.1, where /metrics, /healthz and /readyz are answered; empty: nowhere, and then no
    port is open. It asks for no password: on another host than the loopback only inside a network of your own."""
    alerts_url: dict[str, SecretStr] = Field(default_factory=lambda: _channel_urls())
    """Channel -> its URL, as Apprise takes it: RESEGMENT_ALERTS_URL_MAIL is that of `mail`. {address} in it stands for
    the address of who is told."""
    alerts_send_seconds: float = Field(30.0, ge=0.1, le=600.0)
    """How long a channel may take for a message."""
    alerts_retry_seconds: float = Field(5.0, ge=0.01, le=3_600.0)
    """Until a message is tried for the second time; doubles each time, up to a quarter of an hour."""
    alerts_attempts_max: int = Field(12, ge=1, le=1_000)
    """After so many a message is undelivered: with the default wait, after an hour."""
    alerts_messages_max: int = Field(10_000, ge=1)
    """Messages that may wait for their channels before no more changes are read."""

    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"
    """From where on a worker says what it does. Never what is in a record, nor a password."""

    @field_validator("monitoring_address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        if address:
            host_and_port(address)
        return address

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL"):
            for name in ("kafka_sasl_username", "kafka_sasl_password"):
                if not getattr(self, name):
                    raise ValueError(f"RESEGMENT_{name.upper()} is missing: {self.kafka_security_protocol} needs it")
        return self

    def kafka_arguments(self) -> dict[str, Any]:
        """The connection's arguments for any aiokafka client. Raises OSError or ssl.SSLError for unusable files."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap_servers,
            "security_protocol": self.kafka_security_protocol,
        }
        if "SSL" in self.kafka_security_protocol:
            arguments["ssl_context"] = self.ssl_context()
        if self.kafka_security_protocol.startswith("SASL"):
            password = self.kafka_sasl_password
            arguments["sasl_mechanism"] = self.kafka_sasl_mechanism
            arguments["sasl_plain_username"] = self.kafka_sasl_username
            arguments["sasl_plain_password"] = password.get_secret_value() if password else None
        return arguments

    def ssl_context(self) -> ssl.SSLContext:
        """TLS that verifies the broker, with the client's certificate where one is set. Raises OSError."""
        with _named("RESEGMENT_KAFKA_CA_FILE", self.kafka_ca_file):
            context = ssl.create_default_context(cafile=self.kafka_ca_file)
        if self.kafka_certificate_file:
            with _named("RESEGMENT_KAFKA_CERTIFICATE_FILE, RESEGMENT_KAFKA_KEY_FILE", self.kafka_certificate_file):
                # an encrypted key would be asked for at the terminal
                context.load_cert_chain(self.kafka_certificate_file, self.kafka_key_file, password="")
        return context


def host_and_port(address: str) -> tuple[str, int]:
    """Where to listen: "HOST:PORT", or "PORT" on the loopback. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError("expected PORT or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


_CHANNEL_URL = "RESEGMENT_ALERTS_URL_"


def _channel_urls() -> dict[str, SecretStr]:
    return {
        name.removeprefix(_CHANNEL_URL).lower(): SecretStr(url)
        for name, url in os.environ.items()
        if name.startswith(_CHANNEL_URL) and url
    }


@contextmanager
def _named(setting: str, file: Path | None) -> Iterator[None]:
    """Errors that say which setting they are about."""
    try:
        yield
    except ssl.SSLError as error:
        raise OSError(error.errno, f"cannot be used as certificate or key ({setting})", str(file)) from error
    except OSError as error:
        raise type(error)(error.errno, f"{error.strerror} ({setting})", str(file)) from None
