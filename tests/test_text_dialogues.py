"""Dialogues without sound: what they hold, how they are laid out, and what copies as what."""

import dataclasses
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.perform import perform
from data.scripts.domain import load_domain
from data.suites.suite import load_suites
from data.timeline import Cast
from data.voices.silent import SILENT
from model.tokens import MADE, PAD, DialogueTokenizer, load_tokenizer
from train.copying import DONE, SPOKEN, copy_targets
from train.dialogue_data import DialogueData, DialogueDataConfig, Part
from train.positions import FRAME, Positions, PositionsConfig, positions_of
from train.text_dialogues import TextDialogues, TextDialoguesConfig, vocabulary_words
from train.tokenizer import learn

DOMAINS = {"front_desk": 4.0, "library": 1.0}
TEXT = TextDialoguesConfig(DOMAINS, codebooks=4, latent_dim=3)
PLAIN = PositionsConfig(plain_user_text=True, describe_tools=False)
SHIPPED = Path(__file__).parents[1] / "model" / "tokenizers" / "front_desk.json"


@pytest.fixture(scope="module")
def tokenizer() -> DialogueTokenizer:
    return load_tokenizer(SHIPPED)


def rows(tokenizer: DialogueTokenizer, any_values: float, count: int) -> list[dict[str, Any]]:
    config = dataclasses.replace(TEXT, any_values=any_values)
    makes = TextDialogues(config, "train", vocabulary_words(tokenizer))
    return [makes.row(f"test {number}") for number in range(count)]


@pytest.fixture(scope="module", params=[0.0, 1.0])
def made(
    request: pytest.FixtureRequest, tokenizer: DialogueTokenizer
) -> list[tuple[dict[str, Any], Positions]]:
    """Rows and positions: of the domains' own values, then of any."""
    rng = np.random.default_rng(0)
    return [
        (row, positions_of(row, tokenizer, PLAIN, rng, heard=False))
        for row in rows(tokenizer, request.param, 40)
    ]


Made = list[tuple[dict[str, Any], Positions]]


def test_a_row_depends_on_its_name_alone(tokenizer: DialogueTokenizer) -> None:
    one = TextDialogues(TEXT, "train", vocabulary_words(tokenizer))
    other = TextDialogues(TEXT, "train", vocabulary_words(tokenizer))
    other.row("before")
    assert json.dumps(one.row("a"), default=str) == json.dumps(other.row("a"), default=str)
    assert one.row("a")["actions"] != one.row("b")["actions"]
    with pytest.raises(ValueError, match="there must be words"):
        TextDialogues(TEXT, "train", words=())


def test_nothing_is_heard_and_time_is_squeezed(made: Made) -> None:
    for row, positions in made:
        is_frame = positions.kind == FRAME
        assert is_frame.sum() == row["frames"] == len(row["floor"])
        assert not positions.heard.any()
        assert not positions.user_latents.any()
        assert positions.user_latents.shape == (len(is_frame), 3)
        assert positions.agent_codes.shape == (len(is_frame), 4)
    frames = [row["frames"] for row, _ in made]
    assert 120 < np.mean(frames) < 260


def test_a_call_comes_when_the_words_that_it_needs_are_written(
    made: Made, tokenizer: DialogueTokenizer
) -> None:
    calls = 0
    for row, positions in made:
        frames = np.flatnonzero(positions.kind == FRAME)
        text = positions.user_text[frames]
        opened = frames[positions.burst[frames] >= 0]
        actions = [action for action in row["actions"] if action["kind"] in MADE]
        for at, action in zip(opened, actions, strict=False):
            frame = int(np.searchsorted(frames, at))
            said = [w for w in row["user_words"] if w["end_s"] <= action["time_s"] + 1e-6]
            tokens = [
                token for word in said for token in tokenizer.encode(f" {_plain(word['text'])}")
            ]
            if frame < row["frames"] - 1:
                written = text[:frame]
                assert written[written != tokenizer.id_of(PAD)].tolist()[: len(tokens)] == tokens
                calls += 1
    assert calls > 20


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum() or letter == "'")


def test_any_value_is_said_and_written(tokenizer: DialogueTokenizer) -> None:
    names = {*(load_domain("front_desk").slots["person"].values or ())}
    found, lengths = set(), set()
    for row in rows(tokenizer, 1.0, 60):
        said = " ".join(_plain(word["text"]) for word in row["user_words"])
        for action in row["actions"]:
            if action["kind"] not in ("call", "revise"):
                continue
            arguments = json.loads(action["arguments"])
            if "person" in arguments:
                assert arguments["person"] in said
                found.add(arguments["person"])
            if "order_id" in arguments:
                lengths.add(len(arguments["order_id"]))
    assert len(found - names) > 5
    assert len(lengths) > 1


# Batches


def data_of(folder: Path, **changes: Any) -> DialogueData:
    config = DialogueDataConfig(
        folders=[folder], tokenizer=SHIPPED, sequence_length=700, batch_size=0, steps_per_epoch=3,
        text_batch_size=2, text=TEXT, positions=PLAIN, **changes,
    )  # fmt: skip
    data = DialogueData(config)
    data.setup("fit")
    return data


def test_texts_alone_make_batches(tmp_path: Path) -> None:
    data = data_of(tmp_path, validation_text_batches=1)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert batch.kind.shape == (2, 700)
        assert batch.learn_frame.any()
        assert not batch.learn_heard.any()
    (validation,) = data.val_dataloader()
    assert validation.kind.shape == (2, 700)
    assert data.latent_statistics() is None


def test_workers_ranks_and_epochs_make_other_texts(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    seen = [
        next(iter(data.loader(part))).user_text.flatten().tolist()
        for part in (Part(), Part(1), Part(0, 1, 2), Part())
    ]
    shared = list(itertools.islice(data_of(tmp_path, workers=2).loader(Part()), 2))
    assert seen[0] == seen[3] == shared[0].user_text.flatten().tolist()
    others = [*seen[:3], shared[1].user_text.flatten().tolist()]
    assert len({tuple(tokens) for tokens in others}) == 4


# Copying


def test_what_copies_as_what(tokenizer: DialogueTokenizer) -> None:
    table = copy_targets(tokenizer, [*DOMAINS])
    assert table.shape == (2, len(tokenizer))
    assert table.dtype == torch.int64

    def copied(row: int, text: str) -> str:
        (token,) = tokenizer.encode(text)
        return tokenizer.decode([int(table[row, token])])

    spoken = {"lucy": " lucy", "4": " four", "next": " next", " week": " week", "{": "{"}
    assert {text: copied(SPOKEN, text) for text in spoken} == spoken
    done = {
        " lucy": "lucy", " four": "4", " oh": "0", " seventy": "7", " sixteen": "1",
        " week": " week", " monday": "monday", ".": ".",
    }  # fmt: skip
    assert {text: copied(DONE, text) for text in done} == done


def test_arguments_can_be_copied_from_what_was_said(
    made: Made, tokenizer: DialogueTokenizer
) -> None:
    """But for times of day, which are said in other words, and what is asked for by other words."""
    written_as = copy_targets(tokenizer, [*DOMAINS])[DONE].numpy()
    copied: list[bool] = []
    for row, positions in made:
        said = {*written_as[positions.user_text].tolist()}
        for action in row["actions"]:
            arguments = json.loads(action["arguments"])
            for name in {"person", "order_id", "phone", "card", "title", "day"} & {*arguments}:
                copied += [token in said for token in tokenizer.encode(arguments[name])]
    assert np.mean(copied) > 0.93


# The vocabulary


def test_the_same_vocabulary_is_learned_again_and_has_every_name(tmp_path: Path) -> None:
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    for path in files:
        learn(DOMAINS, dialogues=60, other=20, vocabulary_size=1000).save(path)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(load_tokenizer(files[0])) in (999, 1000)


def test_every_name_is_one_token_in_the_shipped_vocabulary(tokenizer: DialogueTokenizer) -> None:
    for name in load_domain("front_desk").slots["person"].values or ():
        assert len(tokenizer.encode(name)) == len(tokenizer.encode(f" {name}")) == 1
    assert SHIPPED.stat().st_size < 200_000


# Without sound


def test_a_text_needs_no_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that trains may have none: hold music that nobody hears is only as long."""

    def missing(*_: object) -> None:
        raise FileNotFoundError("no music")

    monkeypatch.setattr("data.timeline.music", missing)
    script = load_suites("front_desk").suites["silence"].script(2)  # music
    silence = perform(script, Cast(SILENT, SILENT, SILENT), "music", random.Random(0))
    assert silence.seconds > 8
    with pytest.raises(FileNotFoundError, match="no music"):
        perform(script, Cast(SILENT, "flite:rms", SILENT), "music", random.Random(0))


def test_what_no_word_says_is_no_argument(tokenizer: DialogueTokenizer) -> None:
    domain = load_domain("front_desk")
    asking = domain.requests["send_message"] + domain.partials["send_message"]
    told_by = {_plain(part.text) for p in asking for part in p if part.slot == "priority"} - {""}
    told_by |= {"priority", "urgent"}  # those of its values
    messages = 0
    for row in rows(tokenizer, 0.0, 200):
        for action in row["actions"]:
            if action["kind"] == "call" and action["tool"] == "send_message":
                said = "".join(_plain(word["text"]) for word in row["user_words"])
                told = any(words in said for words in told_by)
                messages += 1
                assert told or "priority" not in json.loads(action["arguments"])
    assert messages > 20


def test_words_that_name_nothing_are_misheard(tokenizer: DialogueTokenizer) -> None:
    words = vocabulary_words(tokenizer)
    right, wrong = (
        [
            TextDialogues(dataclasses.replace(TEXT, misheard=share), "train", words).row(f"{n}")
            for n in range(30)
        ]
        for share in (0.0, 1.0)
    )
    same = [
        (a["text"], b["text"])
        for before, after in zip(right, wrong, strict=True)
        for a, b in zip(before["user_words"], after["user_words"], strict=False)
    ]
    assert 0.3 < np.mean([a != b for a, b in same]) < 0.9
    for before, after in zip(right, wrong, strict=True):
        calls = [(a["kind"], a["arguments"]) for a in before["actions"] if a["kind"] in MADE]
        assert calls == [(a["kind"], a["arguments"]) for a in after["actions"] if a["kind"] in MADE]
