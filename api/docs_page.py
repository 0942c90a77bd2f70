"""The API's description turned into what the reference page shows: no script from elsewhere, readable offline."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Json = Mapping[str, Any]
_VERBS = ("get", "post")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a member."""

    name: str
    where: str
    type: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    id: str
    verb: str
    path: str
    summary: str
    text: str
    fields: Sequence[Field]
    example_in: str
    answers: Sequence[tuple[str, str]]
    example_out: str


@dataclass(frozen=True, slots=True)
class Group:
    """The routes of one tag."""

    name: str
    text: str
    operations: Sequence[Operation]


def reference(schema: Json) -> Sequence[Group]:
    """Return the routes by tag, in the order of the description."""
    found = [
        _operation(schema, path, verb, entry)
        for path, entries in schema["paths"].items()
        for verb, entry in entries.items()
        if verb in _VERBS
    ]
    tags = {entry["operationId"]: entry["tags"][0] for ops in schema["paths"].values() for entry in ops.values()}
    return [
        Group(tag["name"], tag["description"], [operation for operation in found if tags[operation.id] == tag["name"]])
        for tag in schema["tags"]
    ]


def with_code(text: str) -> Markup:
    """Return text for a page, with what stands between backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _operation(schema: Json, path: str, verb: str, entry: Json) -> Operation:
    body = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = [_field(schema, each["name"], each["in"], each["schema"], each) for each in entry.get("parameters", ())]
    fields += _members(schema, body)
    good: Json = next((answer for code, answer in entry["responses"].items() if code.startswith("2")), {})
    told = good.get("content", {}).get("application/json", {}).get("schema", {})
    return Operation(
        id=entry["operationId"],
        verb=verb.upper(),
        path=path,
        summary=entry["summary"],
        text=entry.get("description", ""),
        fields=fields,
        example_in=_example(schema, body),
        answers=[(code, answer["description"]) for code, answer in sorted(entry["responses"].items())],
        example_out=_example(schema, told),
    )


def _members(schema: Json, body: Json, prefix: str = "") -> list[Field]:
    model = _resolve(schema, body)
    found: list[Field] = []
    for name, member in model.get("properties", {}).items():
        details = {"required": name in model.get("required", ()), "description": member.get("description", "")}
        found.append(_field(schema, prefix + name, "body", member, details))
        if member.get("type") == "array":
            found += _members(schema, member.get("items", {}), f"{prefix}{name}[].")
    return found


def _field(schema: Json, name: str, where: str, kind: Json, details: Json) -> Field:
    text = details.get("description") or kind.get("description") or ""
    return Field(name, where, _type(schema, kind), bool(details.get("required")), text)


def _type(schema: Json, kind: Json) -> str:
    if "anyOf" in kind:
        return " or ".join(_type(schema, each) for each in kind["anyOf"] if each.get("type") != "null")
    if "enum" in kind:
        return " | ".join(map(str, kind["enum"]))
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if kind.get("type") == "array":
        return f"list of {_type(schema, kind.get('items', {}))}"
    return str(kind.get("type", "any"))


def _example(schema: Json, kind: Json) -> str:
    examples = _resolve(schema, kind).get("examples")
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""


def _resolve(schema: Json, kind: Json) -> Json:
    if "$ref" not in kind:
        return kind
    found: Json = schema["components"]["schemas"][str(kind["$ref"]).rpartition("/")[2]]
    return found
