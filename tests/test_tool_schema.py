"""Tools' schemas: closed and bounded where they can be decoded, refused by name where not."""

from typing import Any

import pytest

from model.tool_schema import decodable_tools


def schema_of(field: Any, **root: Any) -> dict[str, Any]:
    """What becomes of one argument's schema."""
    parameters = {"type": "object", "properties": {"field": field}, **root}
    tools = decodable_tools([{"name": "look_up", "parameters": parameters}])
    return tools["look_up"]["properties"]["field"]


@pytest.mark.parametrize(
    ("field", "bounds"),
    [
        ({"type": "string"}, {"maxLength": 200}),
        ({"type": "string", "minLength": 300}, {"maxLength": 300}),
        ({"type": "string", "maxLength": 1000}, {"maxLength": 1000}),
        ({"type": "integer"}, {"minimum": -(10**15), "maximum": 10**15}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"maximum": 10**15}),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {"multipleOf": 1e-6}),
        ({"type": "number", "multipleOf": 0.5}, {"multipleOf": 0.5}),
        ({"type": "array", "items": {"type": "null"}}, {"maxItems": 16}),
        ({"type": "array", "items": {"type": "null"}, "minItems": 20}, {"maxItems": 20}),
        ({"type": "object"}, {"additionalProperties": False}),
        ({"properties": {}, "additionalProperties": True}, {"additionalProperties": False}),
    ],
)
def test_what_is_open_is_bounded(field: dict[str, Any], bounds: dict[str, Any]) -> None:
    found = schema_of(field)
    assert found.items() >= bounds.items()
    assert found.items() >= {key: field[key] for key in {*field} - {*bounds}}.items()


def test_what_says_nothing_is_left_out() -> None:
    found = schema_of({"type": "boolean", "slot": "day", "title": "-", "default": True})
    assert found == {"type": "boolean"}


def test_references_are_looked_up() -> None:
    definitions = {"day/time": {"enum": ["monday"]}, "when": {"$ref": "#/$defs/day~1time"}}
    found = schema_of(
        {"anyOf": [{"$ref": "#/$defs/when"}, {"type": "null"}]}, **{"$defs": definitions}
    )
    assert found == {"anyOf": [{"enum": ["monday"]}, {"type": "null"}]}


def test_types_side_by_side_are_bounded_each() -> None:
    found = schema_of({"type": ["string", "null"], "minLength": 3})
    assert found == {
        "anyOf": [{"type": "string", "minLength": 3, "maxLength": 200}, {"type": "null"}]
    }


def test_a_handoff_is_as_declared_or_has_a_reason() -> None:
    assert [*decodable_tools([])["handoff"]["properties"]] == ["reason"]
    parameters = {"properties": {"why": {"enum": ["angry", "asked"]}}}
    found = decodable_tools([{"name": "handoff", "parameters": parameters}])
    assert found["handoff"]["properties"] == parameters["properties"]


def test_a_tool_may_take_nothing() -> None:
    assert decodable_tools([{"name": "stop"}])["stop"]["properties"] == {}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("string", "'string' must be a JSON Schema object"),
        (True, "True must be a JSON Schema object"),
        ({}, "type None: must be one of"),
        ({"type": "text"}, "type 'text': must be one of"),
        ({"type": "string", "not": {"const": "a"}}, r"\['not'\] cannot be decoded"),
        ({"allOf": [{"type": "string"}]}, r"\['allOf'\] cannot be decoded"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "pattern": "^(?=a)b"}, "look-ahead"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "Regex is empty"),
        ({"type": "string", "format": "phone"}, "Unknown format: phone"),
        ({"type": "string", "maxLength": "5"}, "Expected positive integer for 'maxLength'"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum .* is greater"),
        ({"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 7}, "a multiple of 7"),
        ({"enum": []}, "enum|anyOf is empty"),
        ({"type": "string", "enum": [1, 2]}, "Unsatisfiable"),
        ({"type": "array"}, "must say what its 'items' are"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": []}, r"properties \[\] must be an object"),
        (
            {"type": "object", "additionalProperties": {"type": "null"}},
            "'additionalProperties' with",
        ),
        ({"type": "object", "required": ["a"]}, "must be a list of its properties"),
        ({"type": "object", "required": [["a"]]}, "must be a list of its properties"),
        ({"type": {"a": "string"}}, "type {'a': 'string'}: must be one of"),
        ({"type": "number", "minimum": float("inf")}, "."),
        ({"anyOf": []}, "'anyOf' must be a list"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, r"\['type'\] beside 'anyOf'"),
        ({"oneOf": [{"type": "string"}, {"enum": ["a"]}]}, "oneOf"),
        ({"$ref": "#/$defs/nothing"}, "is not in the tool's parameters"),
        ({"$ref": "https://example.com/a.json"}, "is not in the tool's parameters"),
        ({"$ref": "#/properties/field"}, "comes back to itself"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(field: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)^tool 'look_up', argument 'field': .*{message}"):
        schema_of(field)


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ({"properties": {"inner": {}}}, "field.inner"),
        ({"type": "array", "items": {"properties": {"a": {}}}}, "field.items.a"),
        ({"anyOf": [{"type": "null"}, {"properties": {"b": {}}}]}, "field.b"),
        ({"$ref": "#/$defs/one"}, "field.c"),
    ],
)
def test_what_is_wrong_within_is_named_by_its_path(field: Any, where: str) -> None:
    with pytest.raises(ValueError, match=f"^tool 'look_up', argument '{where}': type None"):
        schema_of(field, **{"$defs": {"one": {"properties": {"c": {}}}}})


@pytest.mark.parametrize("parameters", ["none", {"type": "string"}, None, {"enum": [{}]}])
def test_parameters_must_be_an_object(parameters: Any) -> None:
    with pytest.raises(ValueError, match=r"tool 'look_up', parameters: .*must be a"):
        decodable_tools([{"name": "look_up", "parameters": parameters}])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a b"], "tool 0 is named 'a b': must match"),
        (["ok", 'a"b'], "tool 1 is named"),
        (["größe"], "tool 0 is named"),
        ([""], "tool 0 is named ''"),
        (["x" * 129], "tool 0 is named"),
        ([None], "tool 0 is named None"),
        (["a", "b", "a"], "tool 'a' is declared twice"),
        (["cancel"], "tool 'cancel' is named like an action"),
    ],
)
def test_names_that_cannot_be_written_are_refused(names: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decodable_tools([{"name": name} for name in names])
