"""Why a client of Kafka could not connect: aiokafka tells that to its log alone, and raises an error without it."""

import logging
import ssl


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.error: object = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("Unable connect to") and isinstance(record.args, tuple):
            self.error = record.args[-1]


_listener = _Listener()


def listen() -> None:
    """Listen from now on."""
    logging.getLogger("aiokafka").addHandler(_listener)


def why_not_connected() -> str:
    """What kept the last attempt to connect from succeeding, in words; empty where nothing is known."""
    error = _listener.error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (RESEGMENT_KAFKA_CA_FILE)"
    match type(error).__name__:
        case "SaslAuthenticationFailed" | "AuthenticationFailedError" | "IllegalSaslStateError":
            return "it refuses the user or the password (RESEGMENT_KAFKA_SASL_USERNAME, RESEGMENT_KAFKA_SASL_PASSWORD)"
        case "UnsupportedSaslMechanismError":
            return "it does not know this way to log in (RESEGMENT_KAFKA_SASL_MECHANISM)"
    return "" if error is None else str(error)
