"""Dialogues as batches: positions, splitting, masks, packing, streaming from shards."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from data.shards import features
from model.frame import FLOORS, FRAME_S
from model.tokens import (
    END,
    IDLE,
    MADE,
    PAD,
    DialogueTokenizer,
    serialize,
    serialize_context,
    train_tokenizer,
)
from train.dialogue_data import DialogueData, DialogueDataConfig, DialogueStream, Part
from train.packing import DialogueBatch, pack
from train.positions import ACTION, FRAME, PADDING, Positions, PositionsConfig, cut, positions_of

CODEBOOKS, LATENT_DIM = 4, 3
TOOLS = [{"name": "faq", "parameters": {"type": "object"}}]
SEEDS = range(12)
OFTEN = PositionsConfig(split_probability=0.5)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer() -> DialogueTokenizer:
    return train_tokenizer(["say one two three four five", 'faq {"topic":"hours"}'] * 4, 360)


def word(text: str, start: float, end: float) -> Row:
    """Times in frames."""
    return {"text": text, "start_s": start * FRAME_S, "end_s": end * FRAME_S}


def turn(start: float, end: float, style: str = "neutral") -> Row:
    return {"start_s": start * FRAME_S, "end_s": end * FRAME_S, "style": style}


def action(kind: str, frame: float, number: int = 1, topic: str = "hours") -> Row:
    arguments = {} if kind in ("cancel", "confirm") else {"topic": topic}
    return {
        "time_s": frame * FRAME_S, "kind": kind, "number": number, "tool": "faq",
        "arguments": json.dumps(arguments), "known_s": "{}", "revises": 0,
    }  # fmt: skip


def row_of(number: int, frames: int, actions: Sequence[Row] = (), **changes: Any) -> Row:
    rng = np.random.default_rng(number)
    codes = rng.integers(0, 512, (2, frames, CODEBOOKS), np.uint16)
    codes[0, :, 0] = number  # by which a dialogue is told in a batch
    return {
        "name": f"row {number}", "frames": frames, "system": f"Role {number} <end>",
        "tools": json.dumps(TOOLS), "agent_words": [], "user_words": [], "agent_turns": [],
        "agent_unsaid_words": [],
        "floor": rng.integers(0, len(FLOORS), frames).tolist(), "actions": list(actions),
        "agent_codes": codes[0], "user_codes": codes[1], "script": "{}", "source": "",
        "licence": "", "user_latents": rng.normal(size=(frames, LATENT_DIM)).astype(np.float16),
        **changes,
    }  # fmt: skip


def random_row(number: int) -> Row:
    """Some words and actions of every kind: close together, at once, up to the very end."""
    rng = np.random.default_rng((number, 1))
    frames = int(rng.integers(12, 60))
    times = np.sort(rng.integers(0, frames, rng.integers(1, 7)))
    kinds = rng.choice([*MADE, "result", "result"], len(times))
    actions = [action(str(kind), time, n) for n, (kind, time) in enumerate(zip(kinds, times), 1)]  # noqa: B905
    words = [word(text, 4 * n, 4 * n + 2) for n, text in enumerate("one two three".split())]
    return row_of(number, frames, actions, user_words=words, agent_words=words)


def laid_out(
    row: Row, tokenizer: DialogueTokenizer, config: PositionsConfig = OFTEN, seed: int = 0
) -> Positions:
    return positions_of(row, tokenizer, config, np.random.default_rng(seed))


def expected_channel(row: Row, tokenizer: DialogueTokenizer) -> list[int]:
    texts = serialize_context(row["system"], json.loads(row["tools"])) + [
        serialize(a["kind"], a["number"], a["tool"], json.loads(a["arguments"]))
        for a in row["actions"]
    ]
    return [token for text in texts for token in tokenizer.encode_action(text)]


def channel(kind: Any, tokens: Any, tokenizer: DialogueTokenizer) -> list[int]:
    """The action tokens in order, without what is said by saying nothing."""
    said = (kind == ACTION) | ((kind == FRAME) & (tokens != tokenizer.id_of(IDLE)))
    return tokens[said].tolist()


def frame_of(positions: Positions, index: int) -> int:
    """The last frame at or before a position."""
    return int((positions.kind[: index + 1] == FRAME).sum()) - 1


def text_of(stream: Any, tokenizer: DialogueTokenizer) -> dict[int, str]:
    pad = tokenizer.id_of(PAD)
    return {f: tokenizer.decode([token]) for f, token in enumerate(stream.tolist()) if token != pad}


# Actions


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split_probability", [0.0, 0.1, 0.8])
def test_actions_come_back_in_order_however_they_are_split(
    tokenizer: DialogueTokenizer, seed: int, split_probability: float
) -> None:
    config = PositionsConfig(split_probability=split_probability)
    for number in range(30):
        row = random_row(number)
        positions = laid_out(row, tokenizer, config, seed)
        found = channel(positions.kind, positions.action, tokenizer)
        assert found == expected_channel(row, tokenizer)


def test_splitting_differs_by_seed_and_moves_only_what_follows_the_opening(
    tokenizer: DialogueTokenizer,
) -> None:
    row = row_of(1, 60, [action("call", 10), action("revise", 30, 2), action("result", 45, 2)])
    layouts, openings = set(), set()
    for seed in SEEDS:
        positions = laid_out(row, tokenizer, seed=seed)
        is_frame = positions.kind == FRAME
        layouts.add(tuple(positions.kind))
        openings.add(tuple(positions.action[is_frame]))
        for stream in ("agent_text", "user_text", "floor", "agent_codes", "user_codes"):
            whole = laid_out(row, tokenizer, PositionsConfig(split_probability=0.0))
            expected = getattr(whole, stream)[whole.kind == FRAME]
            assert np.array_equal(getattr(positions, stream)[is_frame], expected)
    assert len(layouts) == len(SEEDS)
    assert len(openings) == 1
    repeated = laid_out(row, tokenizer, seed=3)
    assert np.array_equal(repeated.kind, laid_out(row, tokenizer, seed=3).kind)


def test_a_burst_is_split_anywhere_by_any_number_of_frames(tokenizer: DialogueTokenizer) -> None:
    row = row_of(1, 200, [action("call", 10)], system="", tools="[]")
    tokens = expected_channel(row, tokenizer)
    gaps: set[tuple[int, int]] = set()
    for seed in range(60):
        positions = laid_out(row, tokenizer, seed=seed)
        places = np.flatnonzero(positions.burst == 0)
        assert positions.kind[places].tolist() == [FRAME] + [ACTION] * (len(tokens) - 1)
        gaps |= {(n, int(gap)) for n, gap in enumerate(np.diff(places) - 1)}
    assert {n for n, gap in gaps if gap} == set(range(len(tokens) - 1))
    assert {gap for _, gap in gaps} >= {0, 1, 2, 3}


def test_actions_open_at_their_frame_and_results_stand_whole(tokenizer: DialogueTokenizer) -> None:
    actions = [
        action("call", 10.5), action("result", 14, 1), action("confirm", 20), action("cancel", 21),
    ]  # fmt: skip
    config = PositionsConfig(action_delay_frames=2, split_probability=0.9)
    for seed in SEEDS:
        positions = laid_out(row_of(1, 40, actions), tokenizer, config, seed)
        found = {}
        for kind in ("call", "result", "confirm", "cancel"):
            at = int(np.flatnonzero(positions.action == tokenizer.id_of(f"<{kind}>"))[0])
            found[kind] = (frame_of(positions, at), positions.kind[at])
        assert found == {
            "call": (12, FRAME), "result": (14, ACTION), "confirm": (22, FRAME),
            "cancel": (23, FRAME),
        }  # fmt: skip
        first = int(np.flatnonzero(positions.action == tokenizer.id_of("<result>"))[0])
        size = len(tokenizer.encode_action(serialize("result", 1, "", {"topic": "hours"})))
        assert (positions.kind[first : first + size] == ACTION).all()
        assert positions.action[first + size - 1] == tokenizer.id_of(END)


def test_two_actions_due_at_once_queue_up(tokenizer: DialogueTokenizer) -> None:
    actions = [
        action("call", 10), action("call", 10, 2), action("result", 10, 1), action("handoff", 10),
    ]  # fmt: skip
    positions = laid_out(row_of(1, 40, actions), tokenizer)
    openings = {
        frame_of(positions, int(at))
        for kind in ("call", "handoff")
        for at in np.flatnonzero(positions.action == tokenizer.id_of(f"<{kind}>"))
    }
    assert openings == {12, 13, 14}
    result = int(np.flatnonzero(positions.action == tokenizer.id_of("<result>"))[0])
    assert frame_of(positions, result) == 13


def test_what_is_due_at_the_end_is_kept_and_learned_only_where_a_frame_opens_it(
    tokenizer: DialogueTokenizer,
) -> None:
    row = row_of(1, 20, [action("call", 19), action("cancel", 19.5)], system="", tools="[]")
    positions = laid_out(row, tokenizer)
    assert channel(positions.kind, positions.action, tokenizer) == expected_channel(row, tokenizer)
    call = len(tokenizer.encode_action(serialize("call", 1, "faq", {"topic": "hours"})))
    assert positions.action[19] == tokenizer.id_of("<call>")
    assert positions.learn_action[: 19 + call].all()
    assert positions.action[19 + call] == tokenizer.id_of("<cancel>")
    assert not positions.learn_action[19 + call :].any()


# Text


def test_user_words_come_after_they_end_and_queue_up(tokenizer: DialogueTokenizer) -> None:
    words = [word("one", 2, 5.5), word("xyz", 5.5, 6), word("two", 6, 7), word("three", 38, 39.5)]
    row = row_of(1, 40, system="", tools="[]", user_words=words)
    text = text_of(laid_out(row, tokenizer).user_text, tokenizer)
    assert text == {6: " one", 7: " x", 8: "y", 9: "z", 10: " two"}  # " three" is too late


def test_agent_words_lead_by_some_frames(tokenizer: DialogueTokenizer) -> None:
    words = [word("one", 2, 5), word("two", 20.5, 22), word("xyz", 22, 23), word("three", 23, 26)]
    row = row_of(1, 40, system="", tools="[]", agent_words=words)
    config = PositionsConfig(text_lead_frames=5)
    text = text_of(laid_out(row, tokenizer, config).agent_text, tokenizer)
    assert text == {
        0: " one", 15: " two", 17: " x", 18: "y", 19: "z", 20: " three",
    }  # fmt: skip


def test_text_stops_with_the_sound_where_the_user_cuts_it_off(
    tokenizer: DialogueTokenizer,
) -> None:
    row = row_of(
        1, 60, system="", tools="[]",
        agent_words=[word("one", 10, 12), word("two", 17, 20), word("three", 40, 42)],
        agent_unsaid_words=[word("four", 22, 24), word("five", 24.9, 27), word("six", 26, 28)],
        agent_turns=[turn(10, 20), turn(40, 42)],
    )  # fmt: skip
    text = text_of(laid_out(row, tokenizer).agent_text, tokenizer)
    said = {frame: word.strip() for frame, word in text.items()}
    assert said == {5: "one", 12: "two", 17: "four", 19: "five", 35: "three"}


def test_what_was_cut_off_is_not_written_into_the_next_turn(tokenizer: DialogueTokenizer) -> None:
    unsaid = ("four", 12.5), ("five", 15), ("six", 18), ("xyz", 21), ("one", 24)
    row = row_of(
        1, 60, system="", tools="[]",
        agent_words=[word("one", 10, 12), word("two", 19, 20), word("three", 22, 23)],
        agent_unsaid_words=[word(text, frame, frame + 1) for text, frame in unsaid],
        agent_turns=[turn(10, 12), turn(19, 20.2), turn(22, 23)],
    )  # fmt: skip
    config = PositionsConfig(text_lead_frames=2)
    text = text_of(laid_out(row, tokenizer, config).agent_text, tokenizer)
    said = {frame: word.strip() for frame, word in text.items()}
    assert said == {8: "one", 10: "four", 17: "two", 20: "three"}


def test_a_style_stands_before_the_first_word_of_its_turn(tokenizer: DialogueTokenizer) -> None:
    words = [word(t, s, s + 2) for t, s in (("one", 8), ("two", 11), ("three", 20), ("<calm>", 31))]
    turns = [turn(20, 22, "urgent"), turn(8, 13, "calm"), turn(14, 15, "brisk"), turn(31, 33)]
    row = row_of(1, 40, system="", tools="[]", agent_words=words, agent_turns=turns)
    positions = laid_out(row, tokenizer, PositionsConfig(text_lead_frames=4))
    text = text_of(positions.agent_text, tokenizer)
    assert {f: t for f, t in text.items() if f < 27} == {
        4: "<calm>", 5: " one", 7: " two", 16: "<urgent>", 17: " three",
    }  # fmt: skip
    assert "".join(t for f, t in text.items() if f >= 27) == " <calm>"
    assert (positions.agent_text == tokenizer.id_of("<calm>")).sum() == 1


def test_a_turn_is_not_written_before_what_it_answers(tokenizer: DialogueTokenizer) -> None:
    row = row_of(
        1, 40, [action("call", 8), action("result", 24, 1)], system="", tools="[]",
        user_words=[word("one", 2, 8.5), word("two", 26, 28)],
        agent_words=[word("three", 10, 12), word("four", 25, 26), word("five", 29.5, 31)],
        agent_turns=[turn(10, 12), turn(25, 31)],
    )  # fmt: skip
    for seed in SEEDS:
        positions = laid_out(row, tokenizer, seed=seed)
        is_frame = positions.kind == FRAME
        text = text_of(positions.agent_text[is_frame], tokenizer)
        assert text == {11: " three", 25: " four", 29: " five"}  # as far apart as they are said
        result_end = np.flatnonzero(positions.action == tokenizer.id_of(END))[-1]
        assert frame_of(positions, int(result_end)) < 25


# Masks


def test_what_is_given_is_not_learned(tokenizer: DialogueTokenizer) -> None:
    row = row_of(1, 40, [action("call", 10), action("result", 20, 1), action("confirm", 30)])
    (batch,) = pack([laid_out(row, tokenizer)], 400, tokenizer.id_of(PAD))
    is_frame = batch.kind == FRAME
    assert is_frame.sum() == 40
    assert torch.equal(batch.learn_frame, is_frame)
    assert batch.learn_action[is_frame].all()
    assert not batch.learn_action[batch.kind == PADDING].any()
    learned = batch.action[batch.learn_action & (batch.action != tokenizer.id_of(IDLE))]
    assert tokenizer.decode(learned.tolist()) == (
        '<call> faq {"topic":"hours"} <end><confirm> 1 <end>'
    )
    given = batch.action[(batch.kind == ACTION) & ~batch.learn_action]
    assert tokenizer.decode(given.tolist()) == (
        "".join(serialize_context(row["system"], TOOLS)) + '<result> 1 {"topic":"hours"} <end>'
    )


@pytest.mark.parametrize("inside", range(1, 7))
def test_a_call_that_the_cut_goes_through_is_not_learned(
    tokenizer: DialogueTokenizer, inside: int
) -> None:
    row = row_of(1, 60, [action("call", 5), action("call", 30, 2)], system="", tools="[]")
    whole = laid_out(row, tokenizer)
    first, second = (np.flatnonzero(whole.burst == number) for number in (0, 1))
    assert len(second) > inside
    kept = cut(whole, int(second[inside]))
    assert not kept.learn_action[second[:inside]].any()
    assert kept.learn_action[first].all()
    assert kept.learn_action[kept.kind == FRAME].sum() == (kept.kind == FRAME).sum() - 1
    assert np.array_equal(kept.action, whole.action[: int(second[inside])])
    uncut = cut(whole, int(second[-1]) + 1)
    assert uncut.learn_action[second].all()


# Packing


def test_sequences_hold_whole_dialogues_in_order(tokenizer: DialogueTokenizer) -> None:
    rows = [random_row(number) for number in range(40)]
    laid = [laid_out(row, tokenizer) for row in rows]
    length, pad = 300, 7  # not the vocabulary's, to see it
    assert max(len(positions.kind) for positions in laid) < length
    sequences = list(pack(laid, length, pad))
    assert 1 < len(sequences) < len(rows)
    found = []
    for sequence in sequences:
        used = int((sequence.segment > 0).sum())
        assert (sequence.segment[used:] == 0).all()
        assert (sequence.kind[used:] == PADDING).all()
        assert (sequence.kind[:used] != PADDING).all()
        for name in ("action", "agent_text", "user_text"):
            assert (getattr(sequence, name)[used:] == pad).all()
        assert (sequence.segment[:used].diff() >= 0).all()
        for segment in range(1, int(sequence.segment.max()) + 1):
            here = sequence.segment == segment
            assert torch.equal(sequence.position[here], torch.arange(int(here.sum())))
            numbers = sequence.agent_codes[here & (sequence.kind == FRAME)][:, 0].unique().tolist()
            assert len(numbers) == 1, "two dialogues in one segment"
            found += numbers
            row = rows[numbers[0]]
            tokens = channel(sequence.kind[here], sequence.action[here], tokenizer)
            assert tokens == expected_channel(row, tokenizer)
    assert found == list(range(40))


def test_a_dialogue_that_does_not_fit_begins_the_next_sequence(
    tokenizer: DialogueTokenizer,
) -> None:
    rows = [row_of(n, frames, system="", tools="[]") for n, frames in enumerate((40, 60, 61, 250))]
    laid = [laid_out(row, tokenizer) for row in rows]
    sequences = list(pack(laid, 100, tokenizer.id_of(PAD)))
    counts = [Counter(sequence.segment.tolist()) for sequence in sequences]
    assert counts == [{1: 40, 2: 60}, {1: 61, 0: 39}, {1: 100}]
    assert torch.equal(sequences[2].user_codes, torch.from_numpy(laid[3].user_codes[:100]))


# Streaming


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets sleeps this long whenever shards have been read, for pyarrow's threads to end."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer: DialogueTokenizer) -> Path:
    """Four shards of unlike size, and a tokenizer."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [7, 4, 9, 5])
    tokenizer.save(folder / "tokenizer.json")
    return folder


def write_shards(folder: Path, sizes: Sequence[int], latent_dim: int = LATENT_DIM) -> None:
    numbers = iter(range(sum(sizes)))
    for shard, size in enumerate(sizes):
        rows = [random_row(next(numbers)) for _ in range(size)]
        if not latent_dim:
            rows = [{k: v for k, v in row.items() if k != "user_latents"} for row in rows]
        made = datasets.Dataset.from_list(rows, features=features(CODEBOOKS, latent_dim))
        made.to_parquet(str(folder / f"{shard}.parquet"))


def data_of(folder: Path, **changes: Any) -> DialogueData:
    config = DialogueDataConfig(
        **{
            "folders": [folder], "tokenizer": folder / "tokenizer.json", "sequence_length": 300,
            "batch_size": 2, "steps_per_epoch": 6, "positions": OFTEN, "shuffle_rows": 4, **changes,
        }
    )  # fmt: skip
    data = DialogueData(config)
    data.setup("fit")
    return data


def test_several_folders_train_and_the_first_validates(tmp_path: Path, tokenizer) -> None:
    folders = [tmp_path / "calls", tmp_path / "read"]
    for folder in folders:
        folder.mkdir()
        write_shards(folder, [1, 1])
    tokenizer.save(tmp_path / "tokenizer.json")
    changes = {"tokenizer": tmp_path / "tokenizer.json", "validation_shards": 1}
    data = data_of(tmp_path, folders=folders, **changes)
    names = [
        [Path(shard).parent.name for shard in found]
        for found in (data.validation_shards, data.shards)
    ]
    assert names == [["calls"], ["calls", "read", "read"]]
    with pytest.raises(ValueError, match="must be a list of folders"):
        data_of(tmp_path, folders=str(folders[0]), **changes)
    with pytest.raises(FileNotFoundError, match="none holds 0 shards"):
        data_of(tmp_path, folders=[*folders, tmp_path / "none"], **changes)


def segments(batches: Sequence[DialogueBatch]) -> list[tuple[int, DialogueBatch]]:
    """(number of the row, what the batch holds of it) of each dialogue, in order."""
    found = []
    for batch in batches:
        for index in range(len(batch.kind)):
            sequence = DialogueBatch._make(stream[index] for stream in batch)
            for segment in range(1, int(sequence.segment.max()) + 1):
                here = sequence.segment == segment
                part = DialogueBatch._make(stream[here] for stream in sequence)
                found.append((int(part.agent_codes[part.kind == FRAME][0, 0]), part))
    return found


def equal(one: Sequence[DialogueBatch], other: Sequence[DialogueBatch]) -> bool:
    pairs: list[tuple[Tensor, Tensor]] = [
        pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)
    ]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def first_lap(numbers: Sequence[int]) -> list[int]:
    """What came until something came again."""
    again = next((n for n, number in enumerate(numbers) if number in numbers[:n]), len(numbers))
    return list(numbers[:again])


def test_batches_hold_what_the_rows_hold(shards: Path, tokenizer: DialogueTokenizer) -> None:
    batches = list(data_of(shards, steps_per_epoch=9).train_dataloader())
    assert len(batches) == 9
    assert batches[0].kind.shape == (2, 300)
    assert batches[0].agent_codes.shape == (2, 300, CODEBOOKS)
    assert batches[0].user_latents.shape == (2, 300, LATENT_DIM)
    masks = {"heard", "learn_action", "learn_frame"}
    for name, stream in batches[0]._asdict().items():
        assert stream.dtype == (
            torch.bool
            if name in masks
            else torch.float32
            if name == "user_latents"
            else torch.int64
        )
    found = segments(batches)
    lap = first_lap([number for number, _ in found])
    assert sorted(lap) == list(range(25))
    assert lap != list(range(25)), "not shuffled"
    for number, part in found:
        row, is_frame = random_row(number), part.kind == FRAME
        assert torch.equal(part.heard, is_frame)
        assert channel(part.kind, part.action, tokenizer) == expected_channel(row, tokenizer)
        for name in ("agent_codes", "user_codes", "floor", "user_latents"):
            stream, expected = getattr(part, name), torch.tensor(np.asarray(row[name]).tolist())
            assert torch.equal(stream[is_frame], expected), name
            assert not stream[~is_frame].any()


@pytest.mark.parametrize("sizes", [(7, 4, 9, 5), (9, 7, 9), (6, 2, 3, 4, 5, 5)])
def test_two_workers_on_two_nodes_see_every_row_once_a_lap(
    tmp_path: Path, tokenizer: DialogueTokenizer, sizes: tuple[int, ...]
) -> None:
    write_shards(tmp_path, sizes)
    tokenizer.save(tmp_path / "tokenizer.json")
    data = data_of(tmp_path, workers=2)

    class Lap(DialogueStream):
        def __iter__(self) -> Iterator[str]:  # type: ignore[override]
            return (row["name"] for row in self.rows(lap=3))

    seen = []
    for rank in range(2):
        lap = Lap(data.shards, data.tokenizer, data.config, Part(1, rank, ranks=2))
        names = list(DataLoader(lap, batch_size=None, num_workers=2))
        assert len(names) > 5
        seen += names
    assert sorted(seen) == sorted(f"row {number}" for number in range(25))


def test_more_workers_than_shards_are_refused(tmp_path: Path, tokenizer: DialogueTokenizer) -> None:
    write_shards(tmp_path, [5])
    tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="1 shards are too few for 2 workers"):
        list(itertools.islice(data_of(tmp_path, workers=2).loader(Part()), 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_and_epoch_give_the_same_batches(shards: Path, workers: int) -> None:
    def read(epoch: int, seed: int) -> list[DialogueBatch]:
        loader = data_of(shards, workers=workers, seed=seed).loader(Part(epoch))
        return list(itertools.islice(loader, 8))

    first = read(1, 0)
    assert equal(first, read(1, 0))
    for epoch, seed in ((2, 0), (1, 1)):
        other = read(epoch, seed)
        assert [n for n, _ in segments(other)] != [n for n, _ in segments(first)]
        parts = dict(segments(first))
        assert any(
            not torch.equal(part.kind, parts[number].kind)
            for number, part in segments(other)
            if number in parts
        ), "bursts are split as before"


def test_splitting_does_not_depend_on_who_reads_a_row(shards: Path) -> None:
    loader = data_of(shards).loader(Part(1))
    alone = segments(list(itertools.islice(loader, 12)))
    lap = dict(alone[: len(first_lap([number for number, _ in alone]))])
    loader = data_of(shards, workers=2).loader(Part(1, 1, 2))
    shared = segments(list(itertools.islice(loader, 1)))
    assert shared
    for number, part in shared:
        assert torch.equal(part.action, lap[number].action)


def test_shards_without_latents(tmp_path: Path, tokenizer: DialogueTokenizer) -> None:
    write_shards(tmp_path, [3], latent_dim=0)
    tokenizer.save(tmp_path / "tokenizer.json")
    (batch,) = data_of(tmp_path, steps_per_epoch=1).train_dataloader()
    assert batch.user_latents.shape == (*batch.kind.shape, 0)


def test_a_dialogue_longer_than_a_sequence_is_told(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = list(data_of(shards, sequence_length=60).train_dataloader())
    assert all(batch.kind.shape[1] == 60 for batch in batches)
    assert "cut to 60" in caplog.text


class Listener(lightning.LightningModule):
    """Keeps which rows came in each step, and takes steps of no consequence."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []
        self.validated = 0

    def training_step(self, batch: DialogueBatch) -> Tensor:
        self.seen.append([number for number, _ in segments([batch])])
        return self.weight.sum()

    def validation_step(self, batch: DialogueBatch) -> None:
        self.validated += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, shards: Path, steps: int, resume: Path | None = None) -> Listener:
    """Trains so many steps and leaves `last.ckpt`; an epoch has 6 steps."""
    saving = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
    trainer = lightning.Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", logger=False,
        callbacks=[saving], enable_progress_bar=False, enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
    )  # fmt: skip
    module = Listener()
    trainer.fit(module, data_of(shards, validation_shards=1), ckpt_path=resume)
    return module


def test_epochs_have_as_many_steps_as_asked_for_and_are_drawn_anew(
    shards: Path, tmp_path: Path
) -> None:
    whole = fit(tmp_path, shards, 12)
    assert len(whole.seen) == 12
    assert whole.seen[:6] != whole.seen[6:]
    assert whole.validated > 0


@pytest.mark.parametrize("cut_off", [4, 6, 9])
def test_a_resumed_run_sees_what_it_would_have_seen(
    shards: Path, tmp_path: Path, cut_off: int
) -> None:
    whole = fit(tmp_path / "whole", shards, 14)
    begun = fit(tmp_path / "cut", shards, cut_off)
    resumed = fit(tmp_path / "cut", shards, 14, tmp_path / "cut" / "last.ckpt")
    assert begun.seen + resumed.seen == whole.seen


def test_validation_is_held_out_and_alike_for_every_rank(shards: Path) -> None:
    data = data_of(shards, validation_shards=1)
    trained = segments(list(data.train_dataloader()))
    assert not {number for number, _ in trained} & set(range(7))
    whole = data.validation(0, 1)
    assert [number for number, _ in segments(whole)] == list(range(7))
    assert equal(whole, data_of(shards, validation_shards=1, seed=3).validation(0, 1))
    for _, part in segments(whole):
        opened = part.kind[part.learn_action & (part.action != part.action[-1])]
        assert opened.numel() == 0 or opened[0] == FRAME
    ranks = [data.validation(rank, 2) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) > 0
    assert not {n for n, _ in segments(ranks[0])} & {n for n, _ in segments(ranks[1])}


# What is refused


@pytest.mark.parametrize("stream", ["floor", "agent_codes", "user_codes", "user_latents"])
def test_a_stream_of_other_length_is_refused(tokenizer: DialogueTokenizer, stream: str) -> None:
    row = row_of(1, 20)
    row[stream] = row[stream][:-1]
    with pytest.raises(ValueError, match=f"row 1: {stream} has 19 of 20 frames"):
        laid_out(row, tokenizer)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds 0 shards"):
        data_of(tmp_path)


@pytest.mark.parametrize("wrong", [{"sequence_length": 0}, {"workers": -1}, {"shuffle_rows": 0}])
def test_config_asserts_its_values(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        data_of(tmp_path, **wrong)
    with pytest.raises(ValueError, match="split_probability 1"):
        PositionsConfig(split_probability=1.0)
    with pytest.raises(ValueError, match="lead"):
        PositionsConfig(text_lead_frames=-1)
