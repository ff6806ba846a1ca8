"""Whether a contract may follow another: what of a JSON Schema, changed, would break who has been going by it.

An output's records must go on being what their readers were promised, an input must go on taking what its writers were
told it takes. So of two schemas one must describe nothing that the other does not, which is decided field by field.
Fields that a schema does not name are always allowed, and ignored; adding one breaks nobody.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streams.contracts import Direction, Schema

RELEASED = Path(__file__).parents[2] / "docs" / "contracts" / "released"

_ANNOTATIONS = {"$schema", "title", "description", "default", "definitions"}
"""They promise nothing."""
_HANDLED = {"type", "const", "enum", "anyOf", "$ref", "properties", "required", "additionalProperties", "items"}
_AT_LEAST = {"minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"}
_AT_MOST = {"maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"}
_TYPES = {"integer": {"integer", "number"}}
"""What else a type is; each is itself."""


def last_released() -> Path:
    """The folder with the contracts of the last released version."""
    return max(RELEASED.iterdir(), key=lambda folder: tuple(map(int, folder.name.split("."))))


def read_schemas(folder: Path) -> dict[str, Schema]:
    """The JSON Schemas in a folder, by name."""
    files = folder.glob("*.schema.json")
    return {file.name.removesuffix(".schema.json"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def broken(old: Mapping[str, Schema], new: Mapping[str, Schema], directions: Mapping[str, Direction]) -> Iterator[str]:
    """What would break who goes by the old schemas, each in a line."""
    for name, schema in sorted(old.items()):
        if name not in new:
            yield f"{name}: is gone"
        else:
            yield from (f"{name}{text}" for text in breaks(schema, new[name], directions[name]))


def breaks(old: Schema, new: Schema, direction: Direction) -> Iterator[str]:
    """What would break who goes by the old schema: each place in it, and what is wrong there."""
    yield from _gone(old, new, old, new, "")
    if direction == "output":
        yield from (
            f"{text}, so readers may get what they were not promised" for text in _beyond(new, old, new, old, "")
        )
    else:
        yield from (f"{text}, so what was taken is refused" for text in _beyond(old, new, old, new, ""))


def _gone(old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str) -> Iterator[str]:
    """Fields and known values that are not there any more, at whatever depth, whether they had to be there or not."""
    olds, news = list(_branches(old, old_root)), list(_branches(new, new_root))
    known = [value for branch in news for value in branch.get("x-extensible-enum", [])]
    for branch in olds:
        for value in branch.get("x-extensible-enum", []):
            if value not in known:
                yield f"{path}: the value {value!r} is gone"
        for name, field in branch.get("properties", {}).items():
            if found := [other["properties"][name] for other in news if name in other.get("properties", {})]:
                yield from _gone(field, {"anyOf": found}, old_root, new_root, f"{path}.{name}")
            else:
                yield f"{path}.{name}: is gone"
        if "items" in branch and (found := [other["items"] for other in news if "items" in other]):
            yield from _gone(branch["items"], {"anyOf": found}, old_root, new_root, f"{path}[]")


def _branches(schema: Schema, root: Schema) -> Iterator[Schema]:
    """All that a schema may be, without `anyOf` and `$ref`."""
    schema = _resolved(schema, root)
    if "anyOf" not in schema:
        yield schema
    for branch in schema.get("anyOf", []):
        yield from _branches(branch, root)


def _beyond(inner: Schema, outer: Schema, inner_root: Schema, outer_root: Schema, path: str) -> Iterator[str]:
    """Why not all that the inner schema describes is described by the outer one."""
    inner, outer = _resolved(inner, inner_root), _resolved(outer, outer_root)
    if "anyOf" in inner:
        for branch in inner["anyOf"]:
            yield from _beyond({**_rest(inner), **branch}, outer, inner_root, outer_root, path)
        return
    if "anyOf" in outer:
        tried = [
            list(_beyond(inner, {**_rest(outer), **branch}, inner_root, outer_root, path)) for branch in outer["anyOf"]
        ]
        yield from min(tried, key=len)
        return
    if "type" in outer and outer["type"] not in _TYPES.get(inner.get("type", ""), {inner.get("type")}):
        yield f"{path}: {inner.get('type', 'anything')} is not {outer['type']}"
        return
    yield from _values_beyond(inner, outer, path)
    yield from _limits_beyond(inner, outer, path)
    yield from _fields_beyond(inner, outer, inner_root, outer_root, path)


def _values_beyond(inner: Schema, outer: Schema, path: str) -> Iterator[str]:
    allowed, possible = _values(outer), _values(inner)
    if allowed is None:
        return
    if possible is None:
        yield f"{path}: any value is possible, not only {allowed}"
    elif others := [value for value in possible if value not in allowed]:
        yield f"{path}: {others} is not among {allowed}"


def _limits_beyond(inner: Schema, outer: Schema, path: str) -> Iterator[str]:
    for keyword, limit in outer.items():
        own = inner.get(keyword)
        if keyword in _AT_LEAST and (own is None or own < limit):
            yield f"{path}: {keyword} {own} is below {limit}"
        elif keyword in _AT_MOST and (own is None or own > limit):
            yield f"{path}: {keyword} {own} is above {limit}"
        elif (
            keyword not in _ANNOTATIONS | _HANDLED | _AT_LEAST | _AT_MOST
            and not keyword.startswith("x-")
            and own != limit
            and _values(inner) is None
        ):
            # patterns, formats, names of fields: whether one is within the other cannot be told, so they stay
            yield f"{path}: {keyword} {own!r} is not {limit!r}"


def _fields_beyond(inner: Schema, outer: Schema, inner_root: Schema, outer_root: Schema, path: str) -> Iterator[str]:
    for name in outer.get("required", []):
        if name not in inner.get("required", []):
            yield f"{path}.{name}: may be missing"
    for name, field in inner.get("properties", {}).items():
        if name in outer.get("properties", {}):
            yield from _beyond(field, outer["properties"][name], inner_root, outer_root, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(outer.get(keyword), dict):
            own = inner.get(keyword, {})
            yield from _beyond(
                own if isinstance(own, dict) else {}, outer[keyword], inner_root, outer_root, f"{path}[]"
            )
    if outer.get("additionalProperties") is False:
        yield f"{path}: other fields are not allowed"


def _resolved(schema: Schema, root: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].removeprefix("#/definitions/")
    return _resolved(root["definitions"][name], root)


def _rest(schema: Schema) -> Schema:
    return {keyword: value for keyword, value in schema.items() if keyword != "anyOf"}


def _values(schema: Schema) -> list[Any] | None:
    """The only values that there may be; None: there are others."""
    return [schema["const"]] if "const" in schema else schema.get("enum")
