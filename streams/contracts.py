"""The contracts of all topics as files for other programs: JSON Schemas and an AsyncAPI document.

They are made from the models that the program reads and writes by: `python -m streams.contracts docs/contracts`
(`make contracts`). What may change in them from one release to the next is in docs/contracts.md.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from segmentation.policy import Policy
from streams.changes import (
    CHANGE_TYPE,
    INPUT_OFFSET,
    RISK_SOURCE,
    RISK_TYPE,
    SOURCE,
    TRANSFER,
    ChangeData,
    RiskData,
)
from streams.messages import SwitchMessage, TickMessage
from streams.topics import Topic, topic_settings
from streams.wire import CONTRACTS, Reason

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The one that every reader of AsyncAPI 3 must know."""
SCHEMA_FORMAT = "application/schema+json;version=draft-07"
SHARD_REASONS = ("bad_tick", "bad_policy", "bad_standings")
"""Why what the workers write for each other is a dead letter; the others are `Reason`."""

Direction = Literal["input", "output"]
"""input: written by others and read by the program. output: written by it and read by others."""


class Message(NamedTuple):
    """What a record is."""

    title: str
    summary: str
    direction: Direction
    content_type: str
    payload: str | None = None
    """The name of the schema of its value; None: there is none."""
    headers: str | None = None
    """The name of the schema of its headers, each as text; None: it needs none."""


_JSON, _MSGPACK = "application/json", "application/msgpack"
MESSAGES = {
    "purchase": Message("Purchase", "An account bought something, or got money back.", "input", _JSON, "purchase"),
    "signup": Message("Signup", "An account signed up, or says something new of itself.", "input", _JSON, "signup"),
    "engagement": Message("Engagement", "An account did something else than buying.", "input", _JSON, "engagement"),
    "segment-change": Message(
        "Segment change",
        "An account moved from one segment to another: a CloudEvent in binary mode.",
        "output",
        _JSON,
        "segment-change",
        "segment-change-headers",
    ),
    "risk-change": Message(
        "Change of churn risk",
        "An account's level of churn risk is another one: a CloudEvent in binary mode.",
        "output",
        _JSON,
        "risk-change",
        "risk-change-headers",
    ),
    "dead-letter": Message(
        "Dead letter",
        "A record that could not be applied: key and value as they came, and behind these headers its own.",
        "output",
        "application/octet-stream",
        headers="dead-letter-headers",
    ),
    "tick": Message("Tick", "What time it is.", "input", _JSON, "tick"),
    "policy-switch": Message("Policy switch", "Another policy holds.", "input", _JSON, "policy-switch"),
    "standings": Message("Standings", "What an account shard tells a ranking shard.", "input", _MSGPACK),
    "hand-over": Message("Hand-over", "An account goes to another population.", "input", _MSGPACK),
}


class Channel(NamedTuple):
    """What is on a topic, and for whom."""

    description: str
    messages: tuple[str, ...]
    key: str
    """What the key of its records is."""
    is_internal: bool = False
    """Whether only the program's own parts read and write it: then it may change with any version."""


_ACCOUNT_KEY = "The account id, in UTF-8."
CHANNELS = {
    Topic.PURCHASES: Channel("Purchases and refunds.", ("purchase",), _ACCOUNT_KEY),
    Topic.SIGNUPS: Channel("Signups, and what accounts say of themselves.", ("signup",), _ACCOUNT_KEY),
    Topic.ENGAGEMENTS: Channel("What accounts do besides buying.", ("engagement",), _ACCOUNT_KEY),
    Topic.SEGMENT_CHANGES: Channel("Every change of a segment.", ("segment-change",), _ACCOUNT_KEY),
    Topic.SEGMENTS: Channel(
        "The same records, compacted: the latest of each account.", ("segment-change",), _ACCOUNT_KEY
    ),
    Topic.CHURN_RISK: Channel("Every change of a level of churn risk.", ("risk-change",), _ACCOUNT_KEY),
    Topic.RISKS: Channel("The same records, compacted: the latest of each account.", ("risk-change",), _ACCOUNT_KEY),
    Topic.DEAD_LETTERS: Channel(
        "Records that could not be applied, each with its reason.", ("dead-letter",), "The key as it came, or none."
    ),
    Topic.TICKS: Channel("The time, and what policy holds.", ("tick", "policy-switch"), "None.", is_internal=True),
    Topic.STANDINGS: Channel(
        "What the account stage tells the ranking stage.", ("standings", "hand-over"), "Not stated.", is_internal=True
    ),
    Topic.HAND_OVERS: Channel(
        "Of each account and population that it left the latest hand-over; compacted.",
        ("hand-over",),
        "Account and population.",
        is_internal=True,
    ),
}


def schemas() -> dict[str, Schema]:
    """The JSON Schema of every message that is JSON, and of the headers of those that have any, by name."""
    models: dict[str, TypeAdapter[Any]] = {
        **{str(kind): model for kind, model in CONTRACTS.items()},
        "segment-change": TypeAdapter(ChangeData),
        "risk-change": TypeAdapter(RiskData),
        "tick": TypeAdapter(TickMessage),
        "policy-switch": TypeAdapter(SwitchMessage),
    }
    payloads = {message.payload: message for message in MESSAGES.values() if message.payload}
    found = {name: _schema(payloads[name], models[name]) for name in payloads}
    found["segment-change-headers"] = _event_headers(MESSAGES["segment-change"], CHANGE_TYPE, SOURCE)
    found["risk-change-headers"] = _event_headers(MESSAGES["risk-change"], RISK_TYPE, RISK_SOURCE)
    found["dead-letter-headers"] = _dead_letter_headers(MESSAGES["dead-letter"])
    return found


def directions() -> dict[str, Direction]:
    """Of each schema, who writes what it describes."""
    return {
        name: message.direction
        for message in MESSAGES.values()
        for name in (message.payload, message.headers)
        if name is not None
    }


class _Untitled(GenerateJsonSchema):
    """Without a title for each field, which would be its name again."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        return False


def _schema(message: Message, model: TypeAdapter[Any]) -> Schema:
    made = model.json_schema(schema_generator=_Untitled, ref_template="#/definitions/{model}")
    made.pop("title", None)
    definitions = made.pop("$defs", {})
    for definition in definitions.values():
        definition.pop("title", None)
    own = {"description": message.summary, **made}
    return {"$schema": DIALECT, "title": message.title, **own, **({"definitions": definitions} if definitions else {})}


def _headers(message: Message, required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    properties = {name: {"type": "string", **schema} for name, schema in {**required, **optional}.items()}
    return {
        "$schema": DIALECT,
        "title": f"Headers: {message.title}",
        "type": "object",
        "properties": properties,
        "required": list(required),
    }


def _event_headers(message: Message, type_name: str, source: str) -> Schema:
    number = {"pattern": "^[0-9]+$"}
    return _headers(
        message,
        {
            "ce_specversion": {"const": "1.0"},
            "ce_type": {"const": type_name},
            "ce_source": {"const": source},
            "ce_id": {"pattern": ":[0-9]+$", "description": "account_id:sequence of the data; unique in the source."},
            "ce_subject": {"description": "The account id."},
            "ce_time": {"format": "date-time", "description": "`effective_at` of the data."},
            "content-type": {"const": "application/json"},
            INPUT_OFFSET: {**number, "description": "The workers' own: up to where standings were read."},
        },
        {TRANSFER: {**number, "description": "The workers' own: by which transfer the account came."}},
    )


def _dead_letter_headers(message: Message) -> Schema:
    number = {"pattern": "^[0-9]+$"}
    return _headers(
        message,
        {
            "reason": {"x-extensible-enum": [*map(str, Reason), *SHARD_REASONS]},
            "message": {"description": "For people."},
            "topic": {"description": "Where it was, without the installation's prefix."},
            "partition": number,
            "offset": number,
        },
        {"tombstone": {"const": "1", "description": "The record had no value; a dead letter's is empty then."}},
    )


def asyncapi() -> Schema:
    """The AsyncAPI 3 document. Its schemas are the files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Resegment",
            "version": version("resegment"),
            "description": "Live segments of B2B accounts. What keys, order, repetitions and modes mean, and what may "
            "change from one version to the next, is in contracts.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, channel) for topic, channel in CHANNELS.items()},
        "operations": dict(_operations()),
        "components": {"messages": {name: _message(name, message) for name, message in MESSAGES.items()}},
    }


def _channel(topic: Topic, channel: Channel) -> Schema:
    kept: Schema = {
        name: int(value) if name in ("retention.ms", "max.message.bytes") else value
        for name, value in topic_settings(topic, Policy.default()).items()
        if name != "message.timestamp.type"
    }
    if "cleanup.policy" in kept:
        kept["cleanup.policy"] = [kept["cleanup.policy"]]
    description = channel.description
    if channel.is_internal:
        description += " The program's own: nobody else reads or writes it, and any version may change it."
    return {
        "address": topic,
        "description": description,
        **({"tags": [{"name": "internal"}], "x-internal": True} if channel.is_internal else {}),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
        "bindings": {"kafka": {"topicConfiguration": kept, "bindingVersion": "0.5.0"}},
    }


def _operations() -> Iterable[tuple[str, Schema]]:
    """As AsyncAPI 3 has it: what the program itself does."""
    for topic, channel in CHANNELS.items():
        actions = {MESSAGES[name].direction for name in channel.messages}
        for action in ("receive", "send"):
            if channel.is_internal or (action == "receive") == ("input" in actions):
                yield f"{action}-{topic}", {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}


def _message(name: str, message: Message) -> Schema:
    key = next(channel.key for channel in CHANNELS.values() if name in channel.messages)
    parts = {"headers": message.headers, "payload": message.payload}
    return {
        "name": name,
        "title": message.title,
        "summary": message.summary,
        "contentType": message.content_type,
        **{
            part: {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": f"./{schema}.schema.json"}}
            for part, schema in parts.items()
            if schema is not None
        },
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}},
    }


def files() -> dict[str, str]:
    """Every file by its name: `asyncapi.json`, and `NAME.schema.json` for each of `schemas`."""
    documents = {"asyncapi.json": asyncapi()} | {f"{name}.schema.json": schema for name, schema in schemas().items()}
    return {name: json.dumps(document, indent=2, ensure_ascii=False) + "\n" for name, document in documents.items()}


def write(directory: Path) -> None:
    """Write the files there, in place of those that are there. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.json"):
        old.unlink()
    for name, text in files().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
