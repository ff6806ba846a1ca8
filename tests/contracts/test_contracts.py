"""docs/contracts is what the program says, and what it says does not break who goes by the last release."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft7Validator

from streams.contracts import CHANNELS, MESSAGES, asyncapi, directions, files, schemas
from streams.topics import Topic
from streams.wire import EventKind, Reason
from tests.contracts.compatibility import RELEASED, breaks, broken, last_released, read_schemas
from tests.streams.bad_records import BAD_RECORDS, GOOD, BadRecord

FOLDER = RELEASED.parent
SCHEMAS = schemas()


def test_the_files_are_what_the_models_say() -> None:
    """Who changed a model runs `make contracts` and looks at what became of the files."""
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert written == files(), "docs/contracts is stale: make contracts"


def test_nobody_is_broken_who_goes_by_the_last_release() -> None:
    """What cannot be helped gets a new type of its own, beside the old one: docs/contracts.md."""
    assert list(broken(read_schemas(last_released()), SCHEMAS, directions())) == []


def test_every_topic_and_schema_has_its_place() -> None:
    """A topic that is added is in the document, and each schema is one and somebody's."""
    assert set(CHANNELS) == set(Topic)
    assert set(directions()) == set(SCHEMAS)
    assert {name for channel in CHANNELS.values() for name in channel.messages} == set(MESSAGES)
    page = (FOLDER.parent / "contracts.md").read_text(encoding="utf-8")
    assert [topic for topic in Topic if f"`{topic}`" not in page] == []
    for schema in SCHEMAS.values():
        Draft7Validator.check_schema(schema)


def test_what_the_document_refers_to_is_there() -> None:
    """In the document itself, or a file beside it."""
    document = asyncapi()

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [found for value in part.values() for found in references(value)]
        return [found for value in part for found in references(value)] if isinstance(part, list) else []

    named = references(document)
    assert named
    for reference in named:
        if reference.startswith("#/"):
            place = document
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]
        else:
            assert (FOLDER / reference).is_file()


def test_no_list_of_values_that_readers_get_is_closed() -> None:
    """A closed one could never be added to."""
    for name, direction in directions().items():
        assert direction == "input" or '"enum"' not in json.dumps(SCHEMAS[name]), name


# -- what breaks, and what does not ------------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]


def edited(name: str, edit: Edit) -> list[str]:
    """What a schema that was changed breaks of what it was."""
    new = deepcopy(SCHEMAS[name])
    edit(new)
    assert new != SCHEMAS[name]
    return list(breaks(SCHEMAS[name], new, directions()[name]))


TEXT = {"type": "string"}
OPTIONAL_NUMBER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("segment-change", lambda s: s["properties"].pop("lapsed")),
        ("segment-change", lambda s: s["properties"].pop("playbook")),
        ("segment-change", lambda s: s["required"].remove("sequence")),
        ("segment-change", lambda s: s["properties"].update(sequence=TEXT)),
        ("segment-change", lambda s: s["properties"].update(sequence={"type": "number"})),
        ("segment-change", lambda s: s["properties"].update(rolling_revenue_minor=OPTIONAL_NUMBER)),
        ("segment-change", lambda s: s["properties"].update(population={})),
        ("segment-change", lambda s: s["definitions"]["CauseData"]["properties"].pop("kind")),
        ("segment-change", lambda s: s["definitions"]["CauseData"]["required"].remove("event_id")),
        ("segment-change", lambda s: s["properties"]["current_segment"]["x-extensible-enum"].remove("key")),
        ("segment-change", lambda s: s["properties"]["previous_segment"]["anyOf"][0]["x-extensible-enum"].pop()),
        ("segment-change", lambda s: s["definitions"]["CauseData"]["properties"]["kind"].pop("x-extensible-enum")),
        ("segment-change", lambda s: s["properties"]["effective_at"].pop("format")),
        ("risk-change", lambda s: s["properties"]["reasons"].update(items={"type": "integer"})),
        ("risk-change-headers", lambda s: s["properties"]["ce_type"].update(const="another")),
        ("risk-change-headers", lambda s: s["required"].remove("ce_id")),
        ("dead-letter-headers", lambda s: s["properties"]["reason"]["x-extensible-enum"].remove("no_rate")),
        ("purchase", lambda s: s["required"].append("order_id")),
        ("purchase", lambda s: (s["properties"].update(till=TEXT), s["required"].append("till"))),
        ("purchase", lambda s: s["properties"].pop("order_id")),
        ("purchase", lambda s: s["properties"]["amount_minor"].update(maximum=1_000)),
        ("purchase", lambda s: s["properties"]["amount_minor"].update(minimum=1)),
        ("purchase", lambda s: s["properties"].update(amount_minor=TEXT)),
        ("purchase", lambda s: s["properties"]["kind"]["enum"].remove("refund")),
        ("purchase", lambda s: s["properties"]["account_id"].update(pattern="^[a-z]+$")),
        ("purchase", lambda s: s.update(additionalProperties=False)),
        ("signup", lambda s: s["properties"]["attributes"].update(maxProperties=8)),
        ("signup", lambda s: s["properties"]["attributes"]["additionalProperties"]["anyOf"].pop()),
        ("signup", lambda s: s["properties"]["name"].update(maxLength=64)),
        ("engagement", lambda s: s["properties"]["kind"].update(enum=["login"])),
        ("tick", lambda s: s["properties"]["mode"]["enum"].remove("replay")),
    ],
)  # fmt: skip
def test_a_change_that_breaks_somebody_is_found(name: str, edit: Edit) -> None:
    """Readers of an output: a field or value gone, another type, no longer always there. Writers of an input: a field
    that is asked for now, less that is allowed."""
    assert edited(name, edit)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("segment-change", lambda s: s["properties"].update(colour=TEXT)),
        ("segment-change", lambda s: (s["properties"].update(colour=TEXT), s["required"].append("colour"))),
        ("segment-change", lambda s: s["definitions"]["CauseData"]["properties"].update(colour=TEXT)),
        ("segment-change", lambda s: s["required"].append("playbook")),
        ("segment-change", lambda s: s["properties"]["mode"]["x-extensible-enum"].append("dreamt")),
        ("segment-change", lambda s: s["properties"].update(position_revenue={"type": "number"})),
        ("segment-change", lambda s: s["properties"]["lapsed"].update(description="in other words")),
        ("dead-letter-headers", lambda s: s["properties"]["reason"]["x-extensible-enum"].append("too_late")),
        ("purchase", lambda s: s["properties"].update(till=TEXT)),
        ("purchase", lambda s: s["required"].remove("currency")),
        ("purchase", lambda s: s["properties"]["kind"]["enum"].append("gift")),
        ("purchase", lambda s: s["properties"].update(amount_minor={"type": "number"})),
        ("purchase", lambda s: s["properties"]["event_id"].update(maxLength=256)),
        ("purchase", lambda s: s["properties"]["account_id"].pop("pattern")),
        ("signup", lambda s: s["properties"]["attributes"].pop("additionalProperties")),
        ("tick", lambda s: s["properties"].update(zone=TEXT)),
    ],
)  # fmt: skip
def test_a_change_that_breaks_nobody_is_not(name: str, edit: Edit) -> None:
    """Readers ignore fields and values that they do not know; writers may be asked for less."""
    assert edited(name, edit) == []


def test_a_contract_that_is_gone_is_found() -> None:
    """Whoever reads or writes that topic would be alone."""
    assert list(broken(SCHEMAS, {name: SCHEMAS[name] for name in SCHEMAS if name != "signup"}, directions())) == [
        "signup: is gone"
    ]


# -- inputs: what is refused, and by whom ------------------------------------------------------------------------------

BY_THE_SCHEMA = {Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.BAD_FORMAT, Reason.WRONG_TOPIC}
"""Reasons that a writer who validates does not meet."""
BEYOND_THE_SCHEMA = {"exponent", "whole fraction", "engagement kind with a line break"}
"""1e2 and 123.0 are integers to JSON Schema. And `$` is before a last line break to Python, but not to ECMAScript."""


@pytest.mark.parametrize("kind", GOOD)
def test_the_schema_takes_what_the_program_takes(kind: EventKind) -> None:
    """And whatever else is in it."""
    Draft7Validator(SCHEMAS[kind]).validate({**GOOD[kind], "unknown": [None]})


@pytest.mark.parametrize(
    "bad",
    [bad for bad in BAD_RECORDS if bad.reason in BY_THE_SCHEMA and bad.name not in BEYOND_THE_SCHEMA],
    ids=lambda bad: bad.name,
)
def test_the_schema_refuses_what_the_program_refuses(bad: BadRecord) -> None:
    """As far as a schema can: it knows neither keys nor partitions, neither rates nor the calendar."""
    assert not Draft7Validator(SCHEMAS[bad.kind]).is_valid(json.loads(bad.value or b""))
