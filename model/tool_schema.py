"""Tools' parameters as schemas that a call can be decoded under: checked, closed and bounded.

A model that may go on for ever some day does. So what a schema leaves open is bounded here, always
more tightly than the schema: what is decoded is valid under the tool's own schema too.

- Arguments that are not declared are not made, whatever `additionalProperties` says.
- A string has at most 200 characters (or its `minLength`), a list 16 items (or its `minItems`).
- A number lies within 10^15 either way, and has at most 6 decimals where `multipleOf` says nothing.
  Neither exponents nor -0.0 are written.
- `$ref` is looked up within the schema and may not come back to itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llguidance import LLMatcher

from model.tokens import MADE

HANDOFF = "handoff"  # the tool that is an action of its own kind, and the kind's name
_ANY_HANDOFF = {  # where no tool says what a hand-off holds
    "type": "object",
    "properties": {"reason": {"type": "string", "minLength": 1}},
    "required": ["reason"],
}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CHARACTERS, _ITEMS, _SIZE, _DECIMAL = 200, 16, 10**15, 1e-6  # the bounds; see above
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRING = ("minLength", "maxLength", "pattern", "format")
_KEYWORDS = {
    "string": _STRING,
    "integer": _NUMBER,
    "number": _NUMBER,
    "boolean": (),
    "null": (),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}
_CONSTRAINTS = {"type", "enum", "const", "anyOf", "oneOf", "$ref"}.union(*_KEYWORDS.values())
# Of JSON Schema's keywords these cannot be decoded, or not within a bound; others say nothing.
_REFUSED = """allOf not if then else patternProperties propertyNames dependencies dependentRequired
    dependentSchemas unevaluatedProperties prefixItems additionalItems unevaluatedItems contains
    minContains maxContains uniqueItems $dynamicRef $recursiveRef""".split()


@dataclass(frozen=True)
class _Place:
    """Where in which tool's parameters something stands, and the references that led there."""

    tool: str
    root: Mapping[str, Any]
    field: str = ""
    references: tuple[str, ...] = ()

    def inside(self, name: str) -> "_Place":
        return replace(self, field=f"{self.field}.{name}" if self.field else name)

    def fault(self, message: str) -> ValueError:
        where = f"argument {self.field!r}" if self.field else "parameters"
        return ValueError(f"tool {self.tool!r}, {where}: {message}")


def decodable_tools(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The schema of every tool by its name, and of a hand-off, declared or not, by `handoff`.

    Raises ValueError on a tool that cannot be decoded, naming it and the argument.
    """
    schemas: dict[str, dict[str, Any]] = {}
    for number, tool in enumerate(tools):
        name = tool.get("name") if isinstance(tool, Mapping) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"tool {number} is named {name!r}: must match {_NAME.pattern}")
        if name in schemas:
            raise ValueError(f"tool {name!r} is declared twice: names must differ")
        if name in MADE and name != HANDOFF:
            raise ValueError(f"tool {name!r} is named like an action: must not be one of {MADE}")
        schemas[name] = _parameters(name, tool.get("parameters", {"type": "object"}))
    return {**schemas, HANDOFF: schemas.get(HANDOFF) or _parameters(HANDOFF, _ANY_HANDOFF)}


def _parameters(tool: str, parameters: Any) -> dict[str, Any]:
    place = _Place(tool, parameters if isinstance(parameters, Mapping) else {})
    schema = _bounded(parameters, place)
    if schema.get("type") != "object":
        raise place.fault("must be an object's schema")
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _bounded(schema: Any, place: _Place) -> dict[str, Any]:
    """The schema with its bounds, of keywords that the grammar library knows."""
    if not isinstance(schema, Mapping):
        raise place.fault(f"{schema!r} must be a JSON Schema object")
    if refused := sorted({*_REFUSED} & {*schema}):
        raise place.fault(f"{refused} cannot be decoded")
    for keyword in ("$ref", "anyOf", "oneOf"):
        if keyword in schema:
            if beside := sorted(_CONSTRAINTS & {*schema} - {keyword}):
                raise place.fault(f"{beside} beside {keyword!r} cannot be decoded")
            if keyword == "$ref":
                return _referred(schema[keyword], place)
            return _options(keyword, schema[keyword], place)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if "enum" in schema or "const" in schema:
        known = ("type", "enum", "const", *_STRING, *_NUMBER)
        return _checked({key: schema[key] for key in known if key in schema}, place)
    if isinstance(kind, list):
        return _options("anyOf", [{**schema, "type": one} for one in kind], place)
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        raise place.fault(f"type {kind!r}: must be one of {[*_KEYWORDS]}")
    kept = {"type": kind, **{key: schema[key] for key in _KEYWORDS[kind] if key in schema}}
    bound = {
        "string": _bounded_string,
        "integer": _bounded_number,
        "number": _bounded_number,
        "array": _bounded_array,
        "object": _bounded_object,
    }.get(kind)
    return _checked(bound(kept, place) if bound else kept, place)


def _bounded_string(schema: dict[str, Any], place: _Place) -> dict[str, Any]:
    return {"maxLength": _at_least(_CHARACTERS, schema.get("minLength")), **schema}


def _bounded_number(schema: dict[str, Any], place: _Place) -> dict[str, Any]:
    if "exclusiveMinimum" not in schema:
        schema = {"minimum": -_SIZE, **schema}
    if "exclusiveMaximum" not in schema:
        schema = {"maximum": _SIZE, **schema}
    if schema["type"] == "number":
        schema = {"multipleOf": _DECIMAL, **schema}
    return schema


def _bounded_array(schema: dict[str, Any], place: _Place) -> dict[str, Any]:
    if "items" not in schema:
        raise place.fault("a list must say what its 'items' are")
    items = _bounded(schema["items"], place.inside("items"))
    return {"maxItems": _at_least(_ITEMS, schema.get("minItems")), **schema, "items": items}


def _bounded_object(schema: dict[str, Any], place: _Place) -> dict[str, Any]:
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise place.fault(f"properties {properties!r} must be an object")
    if not isinstance(schema.get("additionalProperties", False), bool):
        raise place.fault("'additionalProperties' with a schema cannot be decoded")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(name in [*properties] for name in required):
        raise place.fault(f"required {required!r} must be a list of its properties")
    bounded = {name: _bounded(field, place.inside(name)) for name, field in properties.items()}
    return {**schema, "properties": bounded, "required": required, "additionalProperties": False}


def _at_least(bound: int, smallest: Any) -> int:
    """A bound for what says how small it may be, and not how large."""
    return max(bound, smallest) if isinstance(smallest, int) else bound


def _options(keyword: str, options: Any, place: _Place) -> dict[str, Any]:
    if not isinstance(options, list) or not options:
        raise place.fault(f"{keyword!r} must be a list of schemas")
    return _checked({keyword: [_bounded(option, place) for option in options]}, place)


def _referred(reference: Any, place: _Place) -> dict[str, Any]:
    """What `#/$defs/name` stands for."""
    if reference in place.references:
        raise place.fault(f"$ref {reference!r} comes back to itself: has no bound")
    found: Any = place.root
    first, *keys = str(reference).split("/")
    for key in keys:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    if first != "#" or found is None:
        raise place.fault(f"$ref {reference!r} is not in the tool's parameters")
    return _bounded(found, replace(place, references=(*place.references, reference)))


def _checked(schema: dict[str, Any], place: _Place) -> dict[str, Any]:
    """The schema, which the grammar library takes; what is inside of it has been checked before."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:  # what JSON cannot hold, as infinity
        raise place.fault(str(error)) from error
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error or messages:
        raise place.fault(messages[0])
    return schema
