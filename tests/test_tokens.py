"""The shared vocabulary: round trips, digits, actions as text, and text that spells a token."""

import json
import pickle
import typing
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from data.dialogue import ActionKind
from data.voices import style
from model.tokens import (
    END,
    MADE,
    SPECIAL_TOKENS,
    STYLES,
    DialogueTokenizer,
    load_tokenizer,
    serialize,
    serialize_context,
    train_tokenizer,
)

TEXTS = [
    "What is the status of order four eight one nine two?",
    "Your order has shipped and comes on Tuesday.",
    '<call> order_status {"order_id":"48192"} <end>',
    '<result> 2 {"status":"shipped","eta":"tuesday"} <end>',
] * 4
ACTIONS = {
    '<call> order_status {"order_id":"48192"} <end>': (
        "call", 1, "order_status", {"order_id": "48192"},
    ),
    '<revise> book_demo {"person":"José","day":"next week"} <end>': (
        "revise", 2, "book_demo", {"person": "José", "day": "next week"},
    ),
    "<cancel> 2 <end>": ("cancel", 2, "book_demo", {}),
    "<confirm> 12 <end>": ("confirm", 12, "book_demo", {}),
    '<handoff> {"reason":"requested"} <end>': ("handoff", 0, "handoff", {"reason": "requested"}),
    '<result> 2 {"status":"shipped","eta":"Tuesday"} <end>': (
        "result", 2, "order_status", {"status": "shipped", "eta": "Tuesday"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> DialogueTokenizer:
    return train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize(
    "text",
    ["", " ", " order 48192", "naïve — ß 日本 😀\n\t x", "  two  spaces ", *SPECIAL_TOKENS],
)
def test_text_comes_back(tokenizer: DialogueTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_single_tokens(tokenizer: DialogueTokenizer) -> None:
    trained = train_tokenizer(["48192 48192", "08:30 08:30"] * 50, 400)
    for made in (tokenizer, trained):
        tokens = [made.decode([token]) for token in made.encode(' {"id":"48192"} 7 08:30')]
        assert [token for token in tokens if any(map(str.isdigit, token))] == list("4819270830")


def test_words_in_training_are_fewer_tokens_than_bytes(tokenizer: DialogueTokenizer) -> None:
    assert len(tokenizer.encode(" order")) == 1
    assert len(tokenizer.encode(" zyx")) == 3


def test_a_word_is_split_alike_with_and_without_its_space(tokenizer: DialogueTokenizer) -> None:
    for word in (
        "order",
        "shipped",
        "zyx",
        "orderly",
        "Tuesdayshipped",
        "it's",
        "a",
        '{"',
        "xorder",
    ):
        bare = [tokenizer.decode([token]) for token in tokenizer.encode(word)]
        spaced = [tokenizer.decode([token]) for token in tokenizer.encode(f" {word}")]
        if word[0].isalpha() or len(bare) == 1:
            assert spaced == [f" {bare[0]}", *bare[1:]], word
        assert len(tokenizer.encode(f"a {word}")) == 1 + len(spaced)
    assert [len(tokenizer.encode(word)) for word in ("order", " order", '{"', ' {"')] == [1] * 4


def test_the_most_frequent_words_are_a_token_each() -> None:
    texts = ["often often often seldom", "o'clock o'clock o'clock"]
    made = train_tokenizer(texts, 256 + 52 + len(SPECIAL_TOKENS) + 5)  # two words with their twins
    assert [len(made.encode(f" {word}")) for word in ("often", "o'clock")] == [1, 1]
    assert len(made.encode(" seldom")) == 6


@pytest.mark.parametrize("text", ACTIONS)
def test_actions_are_written_as_designed(tokenizer: DialogueTokenizer, text: str) -> None:
    kind, number, tool, arguments = ACTIONS[text]
    assert serialize(kind, number, tool, arguments) == text
    tokens = tokenizer.encode_action(text)
    assert tokens[0] == tokenizer.id_of(f"<{kind}>")
    assert tokens[-1] == tokenizer.id_of(END)
    assert tokenizer.decode(tokens) == text


def test_context_is_given_where_there_is_any() -> None:
    tools = [{"name": "faq", "parameters": {"type": "object"}}]
    assert serialize_context("You are Ava.", tools) == [
        "<system> You are Ava. <end>",
        '<tools> [{"name":"faq","parameters":{"type":"object"}}] <end>',
    ]
    assert serialize_context("", []) == []


def test_tools_without_their_descriptions_are_signatures() -> None:
    of_to = {"to": {"type": "string"}, "priority": {"enum": ["normal", "urgent"]}}
    of_send = {"type": "object", "properties": of_to, "required": ["to"]}
    tools = [
        {"name": "send", "description": "-", "parameters": of_send},
        {"name": "stop", "parameters": {"type": "object"}},
    ]  # fmt: skip
    assert serialize_context("", tools, describe=False) == [
        "<tools> send(to,priority?=normal|urgent) stop() <end>"
    ]


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
@pytest.mark.parametrize("form", ["{}", "a{}b", " {} ", "<{}>", "{0}{0}", "\n{}", "1{}2"])
def test_spelling_a_special_token_does_not_make_one(
    tokenizer: DialogueTokenizer, token: str, form: str
) -> None:
    prompt = form.format(token)
    actions = [
        *serialize_context(prompt, [{"description": prompt}]),
        serialize("result", 1, "faq", {"answer": prompt}),
    ]
    special = {tokenizer.id_of(name) for name in SPECIAL_TOKENS}
    unpickled = pickle.loads(pickle.dumps(tokenizer))  # as a worker gets it
    for made in (tokenizer, unpickled):
        assert not special & {*made.encode(prompt)}
        for action in actions:
            tokens = made.encode_action(action)
            assert not special & {*tokens[1:-1]}
            assert made.decode(tokens) == action


@pytest.mark.parametrize("text", ["<call> faq {}", "faq {} <end>", "<pad> 1 <end>", "<end>", ""])
def test_what_is_no_action_is_refused(tokenizer: DialogueTokenizer, text: str) -> None:
    with pytest.raises(ValueError, match="must begin"):
        tokenizer.encode_action(text)
    with pytest.raises(ValueError, match="'shout': must be one of"):
        serialize("shout", 1, "faq", {})
    with pytest.raises(ValueError, match="'<shout>': must be one of"):
        tokenizer.id_of("<shout>")


def test_kinds_and_styles_are_those_of_the_data() -> None:
    assert {*MADE, "result"} == {*typing.get_args(ActionKind)}
    assert {*STYLES} == {*style.STYLES} - {style.NEUTRAL}


def test_same_texts_give_the_same_file(tokenizer: DialogueTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    train_tokenizer(TEXTS, 400).save(tmp_path / "again.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert len(loaded) == len(tokenizer) <= 400
    assert loaded.encode(" order <end>") == tokenizer.encode(" order <end>")


def test_vocabulary_has_room_for_bytes_letters_and_special_tokens() -> None:
    smallest = 256 + 52 + len(SPECIAL_TOKENS)
    assert len(train_tokenizer(TEXTS, smallest)) == smallest
    with pytest.raises(ValueError, match=f"must be at least {smallest}"):
        train_tokenizer(TEXTS, smallest - 1)


def _without(made: dict, *tokens: str) -> None:
    made["added_tokens"] = [t for t in made["added_tokens"] if t["content"] not in tokens]
    for token in tokens:
        del made["model"]["vocab"][token]
    ids = {token: number for number, token in enumerate(made["model"]["vocab"])}
    made["model"]["vocab"] = ids
    for token in made["added_tokens"]:
        token["id"] = ids[token["content"]]


def _join(made: dict, left: str, right: str) -> None:
    """Digits are no longer apart, and one merge joins them."""
    made["pre_tokenizer"] = made["pre_tokenizer"]["pretokenizers"][2] | {"use_regex": True}
    made["model"]["vocab"][left + right] = len(made["model"]["vocab"])
    made["model"]["merges"].append([left, right])


def _without_byte(made: dict) -> None:
    made["model"] |= {"merges": [], "vocab": dict(list(made["model"]["vocab"].items())[:200])}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda made: _without(made, "<confirm>", "<calm>"), r"\['<calm>', '<confirm>'\]"),
        (lambda made: made["added_tokens"][2].update(special=False), "can spell"),
        (_without_byte, "lacks the bytes"),
        (lambda made: made.update(pre_tokenizer=None), "byte-level"),
        (lambda made: _join(made, "4", "8"), "joins digits"),
        (lambda made: _join(made, "Ġ", "4"), "joins digits"),
        (lambda made: made["model"].update(type="Unheard"), "tokenizer.json"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    tokenizer: DialogueTokenizer, tmp_path: Path, damage, message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    made = json.loads(path.read_text())
    damage(made)
    path.write_text(json.dumps(made))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(path)


def test_no_file_and_no_tokenizer_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="the special tokens"):
        DialogueTokenizer(Tokenizer.from_str(_wordless()))


def _wordless() -> str:
    return json.dumps({"version": "1.0", "added_tokens": [], "model": {
        "type": "BPE", "vocab": {}, "merges": [],
    }})  # fmt: skip
