"""The action channel's grammar: every call that is decoded is valid, every valid call decodes."""

import functools
import json
import random
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from torch import Tensor

from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import load_domain
from data.scripts.script import Did, Said
from data.scripts.turn import Call
from model.grammar import ActionGrammar, ActionMatcher, MadeAction, parse_action
from model.tokens import END, IDLE, MADE, SPECIAL_TOKENS, serialize, train_tokenizer

DOMAINS = ("front_desk", "library")
FOLDER = Path(__file__).parents[1] / "data/domains"
TOKENIZER = train_tokenizer([(FOLDER / f"{name}.yaml").read_text("utf-8") for name in DOMAINS], 700)
TOKEN_TEXTS = {  # of the tokens that are whole characters
    token: text
    for token in range(len(TOKENIZER))
    if "�" not in (text := TOKENIZER.decode([token])) and text not in SPECIAL_TOKENS
}
BY_LETTER: dict[str, list[int]] = {}
for token, text in TOKEN_TEXTS.items():
    BY_LETTER.setdefault(text[0], []).append(token)
OPEN = (2, 12)  # calls that are open in these tests
LONGEST = 6000  # tokens: more than any burst here can take
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
Choose = Callable[[list[int]], int]


def tool_of(schema: Mapping[str, Any], name: str = "look_up") -> dict[str, Any]:
    return {"name": name, "description": "-", "parameters": schema}


def with_field(field: Any) -> list[dict[str, Any]]:
    return [tool_of({"type": "object", "properties": {"field": field}, "required": ["field"]})]


def opening(kind: str) -> int:
    return TOKENIZER.id_of(f"<{kind}>")


def decode(matcher: ActionMatcher, kind: str, choose: Choose) -> MadeAction:
    """A burst of tokens that are allowed, one chosen after the other; it must come to its end.
    Every second time, what is forced is taken first."""
    matcher.begin(opening(kind), OPEN)
    special = {TOKENIZER.id_of(token) for token in SPECIAL_TOKENS}
    while not matcher.is_done:
        for token in matcher.forced() if len(matcher.tokens) % 2 else ():
            assert matcher.allowed()[token], TOKENIZER.decode([*matcher.tokens, token])
            matcher.accept(token)
        if matcher.is_done:
            break
        allowed = matcher.allowed().nonzero()[:, 0].tolist()
        assert allowed, f"nothing may follow {TOKENIZER.decode(matcher.tokens)}"
        assert not special & {*allowed} or allowed == [TOKENIZER.id_of(END)]
        matcher.accept(choose(allowed))
        assert len(matcher.tokens) < LONGEST, TOKENIZER.decode(matcher.tokens)[-200:]
    assert not matcher.allowed().any()
    return parse_action(TOKENIZER, matcher.tokens)


def takes(grammar: ActionGrammar, tokens: Sequence[int]) -> bool:
    """Whether the mask allows each of these tokens after those before it, to the end."""
    matcher = grammar.matcher()
    matcher.begin(tokens[0], OPEN)
    for token in tokens[1:]:
        if not matcher.allowed()[token]:
            return False
        matcher.accept(token)
    return matcher.is_done


def split_at_random(text: str, rng: random.Random) -> list[int]:
    """Some tokens that say the text, whichever they are."""
    tokens: list[int] = []
    while text:
        near = BY_LETTER.get(text[0], [])
        fitting = [token for token in near if text.startswith(TOKEN_TEXTS[token])]
        if not fitting:  # a letter that only its bytes say
            tokens += TOKENIZER.encode(text[0])
            text = text[1:]
            continue
        tokens.append(rng.choice(fitting))
        text = text[len(TOKEN_TEXTS[tokens[-1]]) :]
    return tokens


def is_decodable(grammar: ActionGrammar, action: str, rng: random.Random) -> bool:
    tokens = TOKENIZER.encode_action(action)
    body = TOKENIZER.decode(tokens[1:-1])
    return takes(grammar, tokens) and takes(
        grammar, [tokens[0], *split_at_random(body, rng), tokens[-1]]
    )


# Schemas at random, each with the values that it allows, keys in its order


Case = tuple[dict[str, Any], st.SearchStrategy[Any]]
SPECIMENS = [*'"\\/\b\f\n\r\t\0\x1f é日😀{}[]:,<>', "<end>", "\\u0041", '"}', "́"]
# Some of every plane. JSON has no surrogates, and a grammar has no DEL.
CODES = [
    *range(0x7F),
    *range(0x80, 0x17F),
    *range(0x180, 0xD800, 997),
    *range(0xE000, 0x10FFFF, 9973),
]
LETTERS = st.sampled_from([chr(code) for code in CODES])
TEXTS = st.lists(LETTERS | st.sampled_from(SPECIMENS), max_size=12).map("".join)
DIGITS = "0123456789"


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=9)
PATTERNS = {
    r"^\d{5}$": st.text(DIGITS, min_size=5, max_size=5),
    r"^\d\d:[03]0$": joined(
        st.text(DIGITS, min_size=2, max_size=2), st.sampled_from([":00", ":30"])
    ),
    r"^[a-z]+@[a-z]+\.(com|org)$": joined(
        WORDS, st.just("@"), WORDS, st.sampled_from([".com", ".org"])
    ),
    r"[A-Z]\"?": joined(TEXTS, st.sampled_from("AZ"), TEXTS),
    r"^(\+\d{1,3} )?[\d-]{3,12}$": joined(
        st.sampled_from(["", "+1 ", "+441 "]), st.text(DIGITS + "-", min_size=3, max_size=12)
    ),
}


@st.composite
def strings(draw: st.DrawFn) -> Case:
    if draw(st.booleans()):
        pattern = draw(st.sampled_from([*PATTERNS]))
        return {"type": "string", "pattern": pattern}, PATTERNS[pattern]
    shortest = draw(st.integers(0, 5))
    longest = shortest + draw(st.integers(0, 8))
    bounds = {"minLength": shortest, "maxLength": longest}
    kept = {key: bound for key, bound in bounds.items() if draw(st.booleans())}
    return {"type": "string", **kept}, st.text(LETTERS, min_size=shortest, max_size=longest)


@st.composite
def numbers(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["integer", "number"]))
    size = st.integers(-(10**12), 10**12) | st.integers(-30, 30)
    low, high = sorted(draw(st.lists(size, min_size=2, max_size=2, unique=True)))
    schema: dict[str, Any] = {"type": kind}
    bounds = {"minimum": low, "exclusiveMaximum": high}
    schema |= {key: bound for key, bound in bounds.items() if draw(st.booleans())}
    values: st.SearchStrategy[Any] = st.integers(low, high - 1)
    if kind == "number":
        # Neither -0.0, which is 0.0, nor exponents are written.
        decimals = st.floats(low, high, exclude_max=True).map(lambda value: round(value, 3) + 0.0)
        values = values | decimals.filter(lambda v: v < high and "e" not in repr(v))
    elif draw(st.booleans()):
        schema["multipleOf"] = divisor = draw(st.integers(1, max(1, min(high - low, 50))))
        values = values.map(lambda value: -(-value // divisor) * divisor)
        values = values.filter(lambda value: low <= value < high)
    return schema, values


@st.composite
def choices(draw: st.DrawFn) -> Case:
    scalars = TEXTS | st.integers(-99, 99) | st.none() | st.booleans()
    values = draw(st.lists(scalars, min_size=1, max_size=4, unique_by=json.dumps))
    if len(values) == 1:
        return {"const": values[0]}, st.just(values[0])
    return {"enum": values}, st.sampled_from(values)


@st.composite
def lists(draw: st.DrawFn, items: st.SearchStrategy[Case]) -> Case:
    schema, values = draw(items)
    least = draw(st.integers(0, 2))
    most = least + draw(st.integers(0, 3))
    bounds = {"minItems": least, "maxItems": most}
    kept = {key: bound for key, bound in bounds.items() if draw(st.booleans())}
    found = st.lists(values, min_size=least, max_size=most)
    return {"type": "array", "items": schema, **kept}, found


@st.composite
def objects(draw: st.DrawFn, fields: st.SearchStrategy[Case]) -> Case:
    names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8) | TEXTS
    cases = draw(st.dictionaries(names, fields, max_size=4))
    required = [name for name in cases if draw(st.booleans())]
    schema = {"type": "object", "properties": {name: case[0] for name, case in cases.items()}}
    schema |= {"required": required} if required or draw(st.booleans()) else {}
    schema |= {"additionalProperties": False} if draw(st.booleans()) else {}

    @st.composite
    def values(draw: st.DrawFn) -> dict[str, Any]:
        given = [name for name in cases if name in required or draw(st.booleans())]
        return {name: draw(cases[name][1]) for name in given}

    return schema, values()


def nullable(case: Case) -> Case:
    return {"anyOf": [case[0], {"type": "null"}], "title": "-"}, case[1] | st.none()


LEAVES = st.one_of(
    strings(), numbers(), choices(), st.just(({"type": "boolean"}, st.booleans())),
    st.just(({"type": ["string", "null"]}, TEXTS | st.none())),
)  # fmt: skip
FIELDS = st.recursive(
    LEAVES, lambda inner: st.one_of(lists(inner), objects(inner), inner.map(nullable)), max_leaves=4
)


@EXAMPLES
@given(st.lists(objects(FIELDS), min_size=1, max_size=3), st.integers(0, 2**32))
def test_every_decoded_call_is_valid(cases: list[Case], seed: int) -> None:
    tools = [tool_of(schema, f"tool{number}") for number, (schema, _) in enumerate(cases)]
    matcher = ActionGrammar(TOKENIZER, tools).matcher()
    generator = torch.Generator().manual_seed(seed)

    def choose(allowed: list[int]) -> int:  # the likeliest by random logits that like some bytes
        logits = 3 * torch.randn(len(allowed), generator=generator)
        return allowed[int(logits.argmax())]

    for kind in ("call", "revise"):
        made = decode(matcher, kind, choose)
        schema = tools[int(made.tool.removeprefix("tool"))]["parameters"]
        Draft202012Validator(schema).validate(made.arguments)
        order = [name for name in schema["properties"] if name in made.arguments]
        assert [*made.arguments] == order, "what is not declared is not made"


@EXAMPLES
@given(objects(FIELDS), st.data())
def test_every_valid_call_can_be_decoded(case: Case, data: st.DataObject) -> None:
    schema, values = case
    others = [tool_of({"type": "object"}, "look"), tool_of(schema, "look_up_all")]
    grammar = ActionGrammar(TOKENIZER, [*others, tool_of(schema)])
    for _ in range(3):
        arguments = data.draw(values)
        Draft202012Validator(schema).validate(arguments)
        kind = data.draw(st.sampled_from(["call", "revise"]))
        action = serialize(kind, 1, "look_up", arguments)
        assert is_decodable(grammar, action, random.Random(data.draw(st.integers(0, 99))))
        parsed = parse_action(TOKENIZER, TOKENIZER.encode_action(action))
        assert parsed == MadeAction(kind, 0, "look_up", arguments)


@pytest.mark.parametrize("text", [*SPECIMENS, 'say "hi" \\ to\n日本 & é', "", " ", "x" * 200])
def test_any_letter_can_stand_in_a_string(text: str) -> None:
    grammar = ActionGrammar(TOKENIZER, with_field({"type": "string"}))
    action = serialize("call", 1, "look_up", {"field": text})
    assert is_decodable(grammar, action, random.Random(0))


# The tools that ship


@functools.cache
def shipped(name: str) -> ActionGrammar:
    tools = load_domain(name).tools.values()
    return ActionGrammar(TOKENIZER, [tool_of(tool.parameters, tool.name) for tool in tools])


def made_in(name: str, count: int) -> list[Call]:
    domain, rng = load_domain(name), random.Random(0)
    scripts = [compose(domain, "train", draw_scenes(domain, 3, rng), rng) for _ in range(count)]
    steps = [step for script in scripts for step in script.steps]
    turns = [call for step in steps if isinstance(step, Said) for call in step.turn.calls]
    return turns + [step.call for step in steps if isinstance(step, Did)]


@pytest.mark.parametrize("name", DOMAINS)
def test_every_call_of_the_data_can_be_decoded(name: str) -> None:
    domain = load_domain(name)
    calls = made_in(name, 40)
    assert {call.tool for call in calls} == {*domain.tools}
    assert {call.kind for call in calls} >= {*MADE} - {"handoff"}
    matcher = shipped(name).matcher()
    for call in calls:
        text = serialize(call.kind, call.number, call.tool, call.arguments)
        tokens = TOKENIZER.encode_action(text)
        matcher.begin(tokens[0], [call.number] if call.number else [1])
        for token in tokens[1:]:
            assert matcher.allowed()[token], (text, TOKENIZER.decode(matcher.tokens))
            matcher.accept(token)
        assert matcher.is_done
        is_call = call.kind in ("call", "revise")
        tool = call.tool if is_call or call.kind == "handoff" else ""
        number = 0 if is_call or call.kind == "handoff" else call.number
        arguments = call.arguments if is_call or call.kind == "handoff" else {}
        assert parse_action(TOKENIZER, tokens) == (call.kind, number, tool, arguments)


@pytest.mark.parametrize("name", DOMAINS)
def test_what_is_forced_is_what_training_writes(name: str) -> None:
    """Names of tools and arguments, brackets, the end: half of a call and more."""
    matcher = shipped(name).matcher()
    chosen = whole = 0
    for call in made_in(name, 40):
        text = serialize(call.kind, call.number, call.tool, call.arguments)
        tokens = TOKENIZER.encode_action(text)
        matcher.begin(tokens[0], [call.number] if call.number else [1])
        while not matcher.is_done:
            forced = matcher.forced()
            place = len(matcher.tokens)
            assert tokens[place : place + len(forced)] == forced, text
            for token in forced or tokens[place : place + 1]:
                matcher.accept(token)
            chosen += not forced
        assert matcher.forced() == []
        whole += len(tokens)
    assert chosen < 0.5 * whole


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("kind", MADE)
def test_what_is_decoded_at_random_fits_the_tools_that_ship(name: str, kind: str) -> None:
    tools = load_domain(name).tools
    matcher, rng = shipped(name).matcher(), random.Random(kind)
    for _ in range(8):
        made = decode(matcher, kind, rng.choice)
        assert made.kind == kind
        if kind in ("cancel", "confirm"):
            assert made.number in OPEN
            continue
        if made.tool in tools:  # the library declares no hand-off
            Draft202012Validator(tools[made.tool].parameters).validate(made.arguments)
        else:
            assert [*made.arguments] == ["reason"]
        assert (made.tool == "handoff") == (kind == "handoff")


# Bursts


@pytest.mark.parametrize("favourite", ["0", "z", " ", "\\", "[", "-", ",", "é"])
def test_a_sampler_that_will_not_stop_is_stopped(favourite: str) -> None:
    text, number = {"type": "string"}, {"type": "number", "exclusiveMinimum": 0}
    fields = {
        "text": text,
        "number": number,
        "count": {"type": "integer"},
        "half": {"type": "number", "multipleOf": 0.5},
        "near": {"type": "number", "minimum": 0.1234567, "maximum": 0.1234599, "multipleOf": 1e-8},
        "mail": {"type": "string", "format": "email"},
        "list": {"type": "array", "items": {"type": "array", "items": number, "maxItems": 2}},
    }
    schema = {"type": "object", "properties": fields, "required": [*fields]}
    matcher = ActionGrammar(TOKENIZER, [tool_of(schema)]).matcher()
    for prefers_first in (True, False):

        def choose(allowed: list[int], prefers_first: bool = prefers_first) -> int:
            liked = [token for token in allowed if favourite in TOKEN_TEXTS.get(token, "")]
            return (liked or allowed)[0 if prefers_first else -1]

        made = decode(matcher, "call", choose)
        Draft202012Validator(schema).validate(made.arguments)


def test_openings_are_those_that_make_sense() -> None:
    def opened(mask: Tensor) -> set[str]:
        assert mask.shape == (len(TOKENIZER),)
        return {TOKENIZER.decode([token])[1:-1] for token in mask.nonzero()[:, 0].tolist()}

    grammar = ActionGrammar(TOKENIZER, with_field({"type": "string"}))
    assert opened(grammar.openings([])) == {"call", "handoff"}
    assert opened(grammar.openings([3])) == {*MADE}
    bare = ActionGrammar(TOKENIZER, [])
    assert opened(bare.openings([])) == {"handoff"}
    assert opened(bare.openings([3])) == {"cancel", "confirm", "handoff"}
    only_handoff = ActionGrammar(TOKENIZER, [tool_of({"type": "object"}, "handoff")])
    assert opened(only_handoff.openings([])) == {"handoff"}


@pytest.mark.parametrize(
    ("token", "calls", "tools"),
    [
        ("<cancel>", (), 1), ("<confirm>", (), 1), ("<revise>", (), 1), ("<call>", (2,), 0),
        ("<result>", (2,), 1), (IDLE, (2,), 1), (END, (2,), 1), ("<cancel>", (0,), 1),
    ],
)  # fmt: skip
def test_what_cannot_open_is_refused(token: str, calls: tuple[int, ...], tools: int) -> None:
    matcher = ActionGrammar(TOKENIZER, with_field({"type": "string"})[:tools]).matcher()
    with pytest.raises(ValueError, match=r"cannot open with calls|numbered from 1"):
        matcher.begin(TOKENIZER.id_of(token), calls)
    assert not matcher.is_done
    assert not matcher.allowed().any()


def test_a_token_that_is_refused_changes_nothing() -> None:
    matcher = ActionGrammar(TOKENIZER, with_field({"type": "boolean"})).matcher()
    with pytest.raises(ValueError, match="no burst is open"):
        matcher.accept(5)
    matcher.begin(opening("call"))
    with pytest.raises(ValueError, match="a burst is open"):
        matcher.begin(opening("call"))
    for token in TOKENIZER.encode_action('<call> look_up {"field":true} <end>')[1:]:
        allowed = matcher.allowed()
        for wrong in [*(~allowed).nonzero()[::7, 0].tolist(), -1, len(TOKENIZER), 10**9]:
            with pytest.raises(ValueError, match="not allowed"):
                matcher.accept(wrong)
        assert torch.equal(matcher.allowed(), allowed)
        matcher.accept(token)
    assert matcher.is_done
    with pytest.raises(ValueError, match="no burst is open"):
        matcher.accept(TOKENIZER.id_of(END))
    assert not matcher.allowed().any()


def test_sessions_do_not_disturb_each_other() -> None:
    grammar = ActionGrammar(TOKENIZER, with_field({"type": "string", "maxLength": 9}))
    actions = [
        serialize(kind, 12, "look_up", {"field": text})
        for kind, text in (("call", "one"), ("revise", "two"), ("cancel", ""), ("call", "three"))
    ]
    bursts = [TOKENIZER.encode_action(action) for action in actions]
    matchers = [grammar.matcher() for _ in bursts]
    for matcher, burst in zip(matchers, bursts, strict=True):
        matcher.begin(burst[0], OPEN)
    for position in range(1, max(map(len, bursts))):
        for matcher, burst in zip(matchers, bursts, strict=True):
            if position < len(burst):
                assert matcher.allowed()[burst[position]]
                matcher.accept(burst[position])
    assert [matcher.tokens for matcher in matchers] == bursts
    assert all(matcher.is_done for matcher in matchers)


@pytest.mark.parametrize(
    "action",
    [
        "<call> look_up <end>", '<call> other {"field":"a"} <end>', "<call> look_up {} <end>",
        '<call> look_up {"field": "a"} <end>', '<call>  look_up {"field":"a"} <end>',
        '<call> look_up {"field":"a"}  <end>', '<call> look_up {"field":"a","more":1} <end>',
        '<call> look_up {"field":"a","field":"b"} <end>', '<call> look_up {"field":1} <end>',
        "<cancel> 1 <end>", "<cancel> 2 2 <end>", "<cancel> 122 <end>", "<confirm>  <end>",
        '<handoff> {"reason":""} <end>', "<handoff> {} <end>",
    ],
)  # fmt: skip
def test_what_is_not_as_written_is_not_decoded(action: str) -> None:
    grammar = ActionGrammar(TOKENIZER, with_field({"type": "string"}))
    assert not takes(grammar, TOKENIZER.encode_action(action))


# Reading


@pytest.mark.parametrize(
    "action",
    [
        "<call> faq <end>", "<call> faq [] <end>", '<call> faq {"a":NaN} <end>', "<call> {} <end>",
        '<call> faq {"a":1,"a":2} <end>', "<call> faq {} {} <end>", '<call> faq {"a":} <end>',
        "<cancel> two <end>", "<cancel> 02 <end>", "<confirm> ٣ <end>", "<handoff> no <end>",
        '<call> faq {"a":' + "[" * 100_000 + " } <end>", "<result> 2 {} <end>",
    ],
)  # fmt: skip
def test_what_is_malformed_is_not_read(action: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_action(TOKENIZER, TOKENIZER.encode_action(action))


def test_tokens_that_are_no_action_are_not_read() -> None:
    tokens = TOKENIZER.encode_action('<call> faq {"a":"b"} <end>')
    assert parse_action(TOKENIZER, tokens) == ("call", 0, "faq", {"a": "b"})
    idle = TOKENIZER.id_of(IDLE)
    for wrong in ([], tokens[:1], tokens[:-1], tokens[1:], [*tokens[:3], idle, *tokens[3:]]):
        with pytest.raises(ValueError, match="must"):
            parse_action(TOKENIZER, wrong)
    with pytest.raises(ValueError, match="must be text"):
        parse_action(TOKENIZER, [*tokens[:-1], len(TOKENIZER), tokens[-1]])
