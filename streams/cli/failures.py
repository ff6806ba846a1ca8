"""From an exception to one clear line and an exit status."""

import asyncio
import os
import signal
import sys
import traceback

from streams.cli.console import err, escape_lines

CHECK_FAILED = 1
"""Exit status: what was checked is not right, or the installation is broken."""
UNUSABLE = 2
"""Exit status: used wrongly, or something that is needed cannot be reached."""

IS_A_CLUSTER = "it is a node of a cluster, whose address begins with redis+cluster:// or rediss+cluster://"
RESTORE = (
    "Restore it; or drop the installation's other keys, too (of a cluster: on every node), and start one worker with "
    "--rebuild."
)


class CommandFailed(Exception):
    """A command's own failure. The message says what is wrong and what to do."""

    def __init__(self, message: str, code: int = UNUSABLE) -> None:
        super().__init__(message)
        self.code = code


class Terminated(Exception):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def explain_failure(error: BaseException) -> int:
    """Say what failed, on standard error. Returns the exit status."""
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else UNUSABLE
        case BrokenPipeError():
            # whoever read our output has enough; nothing more may be written there, not even at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CHECK_FAILED
        case KeyboardInterrupt():
            return 128 + signal.SIGINT
        case Terminated():
            return 128 + error.number
    text, code = _described(error)
    err.print(f"resegment: {escape_lines(text)}")
    if os.environ.get("RESEGMENT_TRACEBACK"):
        traceback.print_exception(error)
    return code


def _described(error: BaseException) -> tuple[str, int]:
    if isinstance(error, CommandFailed):
        return str(error), error.code
    if hasattr(error, "format_message"):  # a usage error of the command line library
        context = getattr(error, "ctx", None)
        help_hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        return f"{error.format_message().strip()}{help_hint}", UNUSABLE
    return _described_by_kind(error)


def _described_by_kind(error: BaseException) -> tuple[str, int]:
    # these are imported when something failed already: no command waits for them
    from aiokafka.errors import KafkaConnectionError, KafkaError
    from pydantic import ValidationError
    from redis.exceptions import MovedError, RedisError

    from segmentation.policy import PolicyError
    from state.founding import NoInstallation
    from state.shard_store import NoSuchShard
    from streams.cdnow import CdnowMissing
    from streams.cli.overheard import why_not_connected
    from streams.embedded import EmbeddedMissing
    from streams.replay import ReplayRefused
    from streams.rest import NoProgress
    from streams.server_process import ServerFailed
    from streams.snapshot import StillChanging

    match error:
        case PolicyError() | EmbeddedMissing() | ServerFailed() | CdnowMissing() | ReplayRefused():
            return str(error), UNUSABLE
        case NoInstallation():
            return f"{error}: start a worker first, or look at RESEGMENT_REDIS_URL and RESEGMENT_REDIS_PREFIX", UNUSABLE
        case NoProgress() | StillChanging():
            return str(error), UNUSABLE
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] in ("numpy", "scipy"):
            return "this needs NumPy and SciPy: pip install 'resegment[model]'", UNUSABLE
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] in ("apprise", "jinja2"):
            return "this needs Apprise and Jinja: pip install 'resegment[alerts]'", UNUSABLE
        case NoSuchShard():
            return f"the store lost data: {error}. {RESTORE}", CHECK_FAILED
        case ValidationError():
            return "; ".join(_setting_problem(problem) for problem in error.errors()), UNUSABLE
        case KafkaConnectionError():
            why = why_not_connected() or error
            return f"cannot reach the broker (RESEGMENT_KAFKA_BOOTSTRAP_SERVERS): {why}", UNUSABLE
        case KafkaError():
            return f"the broker: {type(error).__name__}: {error}", UNUSABLE
        case MovedError():
            return f"cannot use the store (RESEGMENT_REDIS_URL): {IS_A_CLUSTER}", UNUSABLE
        case RedisError():
            return f"cannot use the store (RESEGMENT_REDIS_URL): {type(error).__name__}: {error}", UNUSABLE
        case asyncio.TimeoutError():
            return f"timed out: {error}" if str(error) else "timed out", UNUSABLE
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}", UNUSABLE
    return _described_by_name(error)


def _described_by_name(error: BaseException) -> tuple[str, int]:
    """Errors of modules that are heavy to import, and were imported if they raised one."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {
        "CannotApply",
        "CannotBacktest",
        "CannotFit",
        "CannotStart",
        "CannotVerify",
        "DifferentPolicy",
        "UnfitTopics",
        "UnknownAccount",
    }:
        return str(error), UNUSABLE
    if "CorruptState" in names:
        return str(error), CHECK_FAILED
    return (
        f"unexpected {type(error).__name__}: {error} (set RESEGMENT_TRACEBACK=1 to see where it comes from)",
        CHECK_FAILED,
    )


def _setting_problem(problem: object) -> str:
    assert isinstance(problem, dict)
    field = ".".join(str(part) for part in problem["loc"])
    return f"RESEGMENT_{field.upper()}: {problem['msg']}" if field else problem["msg"].removeprefix("Value error, ")
