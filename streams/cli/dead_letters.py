"""`resegment dead-letters`."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

from rich.text import Text

from streams.cli.console import err, escape, out, print_json, readable, shortened
from streams.cli.failures import CommandFailed
from streams.cli.running import read_settings
from streams.dead_letters import DeadLetter, read_dead_letter
from streams.log import LogReader
from streams.sending import EventWriter
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, Topic, TopicNames


async def run_dead_letters(*, retry: bool, reason: str | None, limit: int | None, as_json: bool) -> None:
    """List the dead letters, or publish their payloads again."""
    settings = read_settings()
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        letters = _read(reader, settings, reason, limit)
        if retry:
            await _retry(settings, letters, as_json=as_json)
        else:
            await _list(letters, as_json=as_json)


async def _read(
    reader: LogReader, settings: Settings, reason: str | None, limit: int | None
) -> AsyncIterator[DeadLetter]:
    """Up to the end that the log has now: what a retry adds is not retried."""
    await reader.refresh()
    count = reader.partition_count(Topic.DEAD_LETTERS)
    if not count:
        name = TopicNames(settings.topic_prefix).name(Topic.DEAD_LETTERS)
        raise CommandFailed(f"topic {name} is missing; make it with `resegment topics create`")
    read = 0
    async for _, record in reader.read({(Topic.DEAD_LETTERS, number): 0 for number in range(count)}):
        try:
            letter = read_dead_letter(record.key, record.value, record.headers)
        except ValueError:
            err.print(f"not a dead letter: {record.topic}[{record.partition}]@{record.offset}")
            continue
        if reason is None or letter.reason == reason:
            if read == limit:
                return
            read += 1
            yield letter


async def _list(letters: AsyncIterator[DeadLetter], *, as_json: bool) -> None:
    count = 0
    async for letter in letters:
        count += 1
        if as_json:
            print_json(_document(letter))
            continue
        line = Text(f"{escape(letter.topic)}[{letter.partition}]@{letter.offset} ")
        line.append(escape(letter.reason), "bold red").append(f": {shortened(escape(letter.message))}")
        out.print(line)
        out.print(Text(f"    {readable(letter.key)}: {readable(letter.payload)}", "dim"))
    if not as_json:
        err.print(f"{count:,} dead letters")


async def _retry(settings: Settings, letters: AsyncIterator[DeadLetter], *, as_json: bool) -> None:
    """Only events: what the stages tell each other is not for people to send."""
    retried = left_out = 0
    async with EventWriter(settings) as writer:
        async for letter in letters:
            if letter.topic not in EVENT_TOPICS:
                left_out += 1
                continue
            await writer.write(Topic(letter.topic), letter.key, letter.payload)
            retried += 1
        await writer.flush()
    if as_json:
        print_json({"retried": retried, "left_out": left_out})
    else:
        out.print(f"{retried:,} published again" + (f", {left_out:,} not events and left out" if left_out else ""))


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "reason": letter.reason,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        **_bytes("key", letter.key),
        **_bytes("payload", letter.payload),
    }


def _bytes(name: str, data: bytes | None) -> dict[str, str | None]:
    """As text where it is text, else as base64 under another name."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}
