"""How sure the model was of a call: only of what the grammar left open."""

import pytest
import torch

from model.confidence import confidence_of, token_probabilities
from model.grammar import ActionGrammar, ActionMatcher
from model.tokens import train_tokenizer

TOKENIZER = train_tokenizer(["look up order 48192", '{"code":"4819"}'] * 4, 400)


def of_tools(*properties: dict) -> ActionMatcher:
    tools = [
        {"name": f"tool{number}", "parameters": {"properties": one, "required": [*one]}}
        for number, one in enumerate(properties)
    ]
    return ActionGrammar(TOKENIZER, tools).matcher()


def made(matcher: ActionMatcher, text: str, likely: dict[str, float], other: float) -> None:
    tokens = TOKENIZER.encode_action(text)
    matcher.begin(tokens[0], [2, 12])
    for token in tokens[1:]:
        matcher.accept(token, likely.get(TOKENIZER.decode([token]), other))


def test_punctuation_and_the_tools_name_do_not_count() -> None:
    matcher = of_tools({"code": {"type": "string", "pattern": r"^\d{4}$"}}, {})
    digits = {"4": 0.8, "8": 0.9, "1": 0.5, "9": 1.0}
    made(matcher, '<call> tool0 {"code":"4819"} <end>', digits, 0.01)
    assert matcher.confidence.weakest == 0.5
    assert matcher.confidence.mean == pytest.approx((0.8 * 0.9 * 0.5 * 1.0) ** 0.25)
    matcher.begin(TOKENIZER.id_of("<call>"))
    assert matcher.confidence == (1.0, 1.0), "a burst of its own"


@pytest.mark.parametrize(
    ("text", "likely", "counted"),
    [
        ("<confirm> 12 <end>", {"1": 0.7, "2": 0.01}, [0.7]),  # of 2 and 12
        ("<confirm> 2 <end>", {" ": 0.02, "2": 0.7}, [0.7]),
        ('<call> tool0 {"word":"ab"} <end>', {"a": 0.6, "b": 0.8, '"}': 0.9}, [0.6, 0.8, 0.9]),
        ("<call> tool1 {} <end>", {}, []),
        ('<call> tool2 {"is_new":true,"kind":"big"} <end>', {"t": 0.6, "b": 0.9}, [0.6, 0.9]),
        ('<handoff> {"reason":"x"} <end>', {"x": 0.3, '"}': 0.9}, [0.3, 0.9]),
    ],
)
def test_what_counts_is_what_could_have_been_otherwise(
    text: str, likely: dict[str, float], counted: list[float]
) -> None:
    matcher = of_tools(
        {"word": {"type": "string"}}, {},
        {"is_new": {"type": "boolean"}, "kind": {"enum": ["big", "small"]}},
    )  # fmt: skip
    made(matcher, text, likely, 0.01)
    assert matcher.confidence == confidence_of(counted)


def test_weakest_and_mean() -> None:
    assert confidence_of([]) == (1.0, 1.0)
    assert confidence_of([0.5]) == (0.5, pytest.approx(0.5))
    assert confidence_of([0.5, 0.02, 1.0]) == (0.02, pytest.approx(0.01 ** (1 / 3)))
    assert confidence_of([0.9, 0.0]) == (0.0, 0.0)
    assert confidence_of([1e-3] * 1000).mean == pytest.approx(1e-3), "long ones do not vanish"


def test_probabilities_are_those_before_the_mask() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, -float("inf")]])
    found = token_probabilities(logits, torch.tensor([2, 0]))
    torch.testing.assert_close(found, torch.stack([logits[0].softmax(0)[2], torch.tensor(0.5)]))
