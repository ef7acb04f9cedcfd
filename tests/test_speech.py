from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.voices.phones import ARPABET
from model.depth import DepthConfig
from model.frame import FRAME_S
from model.reading import Reader, ReaderConfig
from model.speech import SpeechConfig, SpeechState, SpeechTransformer
from model.spelling import PHONES, Spelling, SpellingConfig, letters_of
from model.tokens import PAD, DialogueTokenizer, train_tokenizer
from model.transformer import TransformerConfig
from train.speech_data import lay_text, phone_seconds, read_rows

VOCABULARY = 400
SPELLING = SpellingConfig(dim=8, layers=1)
READER = ReaderConfig(VOCABULARY, lead=3, early=1, tail=2, spelling=SPELLING)
SPEECH = SpeechConfig(
    READER,
    TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, hidden=24, window=6, pinned=2),
    DepthConfig(input_dim=16, dim=16, layers=1, heads=2, hidden=24, steps=3, codebook=9),
)
TEXTS = {
    "Hello and thanks for calling Lakeside, how can I help?": {0: 4, 1: 7, 2: 9, 5: 13, 6: 30},
    "<brisk> One moment. Lucy": {0: 2, 1: 3, 2: 12, 3: 44},
    "No.": {0: 40},
}
FRAMES = 60


@pytest.fixture(scope="module")
def tokenizer() -> DialogueTokenizer:
    return train_tokenizer([f" {text}" for text in TEXTS], VOCABULARY)


@pytest.fixture(scope="module")
def text(tokenizer: DialogueTokenizer) -> Tensor:
    """Words at their frames, a token a frame, int64 [3, FRAMES]."""
    rows = torch.full((len(TEXTS), FRAMES), tokenizer.id_of(PAD))
    for row, (words, frames) in zip(rows, TEXTS.items(), strict=True):
        free = 0
        for number, word in enumerate(words.split()):
            tokens = tokenizer.encode(f" {word}")
            if word == "<brisk>":
                tokens = [tokenizer.id_of(word)]
            first = max(frames.get(number, 0), free)
            row[first : first + len(tokens)] = torch.tensor(tokens)
            free = first + len(tokens)
    return rows


@pytest.fixture(scope="module")
def speech(tokenizer: DialogueTokenizer) -> SpeechTransformer:
    torch.manual_seed(0)
    module = SpeechTransformer(SPEECH).eval()
    module.reader.set_vocabulary(tokenizer)
    module.reader.phone_s[1:] = 0.03  # an untrained network finds too many phones in a word
    module.silence.copy_(torch.tensor([8, 7, 6]))
    return module


def least_likely(logits: Tensor, step: int) -> Tensor:
    return logits.argmin(-1)


def run(
    module: SpeechTransformer,
    text: Tensor,
    state: SpeechState,
    sample: Callable[[Tensor, int], Tensor] = least_likely,
) -> Tensor:
    return torch.stack([module.step(token, state, sample) for token in text.unbind(1)], dim=1)


def assert_same(one: SpeechState | Any, other: SpeechState | Any) -> None:
    for left, right in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


# Spelling


def test_phones_are_those_of_the_voices() -> None:
    assert PHONES == ARPABET


def test_letters_are_numbered_and_others_left_out() -> None:
    assert letters_of(" O'Neil, 7") == [15, 27, 14, 5, 9, 12, 35]


def test_doubled_phones_and_those_of_no_letter_are_not_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spelling = Spelling(SpellingConfig(letters=3, phones=3))
    likeliest = torch.tensor([[5, 5, 0, 5, 7, 1], [1, 2, 3, 4, 5, 6], [0, 0, 4, 4, 9, 9]])
    logits = torch.nn.functional.one_hot(likeliest, len(PHONES) + 1).float()
    monkeypatch.setattr(spelling, "logits", lambda letters: logits)
    letters = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]])
    assert spelling(letters).tolist() == [[5, 5, 7], [1, 2, 3], [4, 0, 0]]


# Reading


@pytest.mark.parametrize("sizes", [[1] * FRAMES, [7, 13, 40], [59, 1]], ids=str)
def test_reading_in_chunks_equals_the_whole(
    speech: SpeechTransformer, text: Tensor, sizes: list[int]
) -> None:
    reader = speech.reader
    whole, state, at_once = reader(text), reader.init_state(3), reader.init_state(3)
    reader(text, at_once)
    chunks = [reader(chunk, state) for chunk in text.split(sizes, dim=1)]
    assert torch.equal(torch.cat([chunk.features for chunk in chunks], 1), whole.features)
    assert torch.equal(torch.cat([chunk.is_spoken for chunk in chunks], 1), whole.is_spoken)
    assert_same(state, at_once)
    sizes_of_columns = [*READER.word_sizes * READER.roles, *READER.frame_sizes]
    assert (whole.features < torch.tensor(sizes_of_columns)).all()


def test_a_row_reads_as_if_alone_and_waits_when_it_is_not_active(
    speech: SpeechTransformer, text: Tensor
) -> None:
    reader = speech.reader
    state = reader.init_state(3)
    found = []
    for token in text.unbind(1):
        found.append(reader(token[:, None], state))
        reader(token.flip(0)[:, None], state, torch.zeros(3, dtype=torch.bool))
    for row in range(3):
        alone = reader(text[row : row + 1])
        features = torch.cat([reading.features[row : row + 1] for reading in found], 1)
        assert torch.equal(features, alone.features)


def test_a_word_is_said_its_lead_after_its_token_and_then_no_longer(
    speech: SpeechTransformer, text: Tensor
) -> None:
    is_spoken = speech.reader(text).is_spoken[2]  # "No." at frame 40, its sound at 43
    spoken = is_spoken.nonzero()[:, 0].tolist()
    assert spoken[0] == 42
    assert spoken == list(range(42, spoken[-1] + 1))
    assert 45 <= spoken[-1] < FRAMES - 1


def test_a_style_lasts_for_its_turn(speech: SpeechTransformer, text: Tensor) -> None:
    style = speech.reader(text).features[1, :, -1]
    assert style[:2].tolist() == [0, 0]
    assert (style[2:16] == 2).all()  # "brisk" is the second style
    assert style[FRAMES - 1] == 0  # "Lucy" comes a long silence later


def test_a_word_is_known_by_all_of_its_tokens(tokenizer: DialogueTokenizer) -> None:
    reader = Reader(READER)
    reader.set_vocabulary(tokenizer)
    state = reader.init_state(1)
    reader(torch.tensor([tokenizer.encode(" zq") + tokenizer.encode("jx.")]), state)
    assert state.letters[0, -1, :5].tolist() == [*letters_of("zqjx"), 0]
    assert state.mark[0, -1] == 3
    assert state.age[0, -2] == 0


def test_too_many_tokens_are_refused(tokenizer: DialogueTokenizer) -> None:
    with pytest.raises(ValueError, match="must be at most the vocabulary's 7"):
        Reader(ReaderConfig(7, spelling=SPELLING)).set_vocabulary(tokenizer)


# Speech


def test_forward_over_spoken_frames_equals_steps(speech: SpeechTransformer, text: Tensor) -> None:
    seen: list[Tensor] = []

    def sample(logits: Tensor, step: int) -> Tensor:
        seen.append(logits)
        return logits.argmin(-1)

    codes = run(speech, text, speech.init_state(3), sample)
    stepped = torch.stack(seen).unflatten(0, (-1, 3)).transpose(1, 2)  # [spoken, B, K, codebook]
    reading = speech.reader(text)
    places = reading.is_spoken.any(0).nonzero()[:, 0].tolist()
    before = torch.cat([speech.silence.expand(3, 1, 3), codes[:, :-1]], dim=1)
    for row in range(3):
        spoken = reading.is_spoken[row]
        hidden = speech(reading.features[row, spoken][None], before[row, spoken][None])[0]
        logits = speech.depth(hidden, codes[row, spoken])
        frames = spoken.nonzero()[:, 0].tolist()
        expected = torch.stack([stepped[places.index(frame), row] for frame in frames])
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_where_nothing_is_said_there_is_silence(speech: SpeechTransformer, text: Tensor) -> None:
    codes = run(speech, text, speech.init_state(3))
    is_silent = (codes == speech.silence).all(-1)
    assert torch.equal(is_silent, ~speech.reader(text).is_spoken)


def test_row_in_batch_equals_row_alone(speech: SpeechTransformer, text: Tensor) -> None:
    state = speech.init_state(3)
    together = run(speech, text, state)
    for row in range(3):
        alone = speech.init_state(1)
        assert torch.equal(run(speech, text[row : row + 1], alone)[0], together[row])
        for one, all_rows in zip(alone.tensors(), state.tensors(), strict=True):
            torch.testing.assert_close(one[0], all_rows[row], atol=1e-5, rtol=1e-5)


def test_paused_row_goes_on_as_if_never_paused(speech: SpeechTransformer, text: Tensor) -> None:
    expected = run(speech, text, speech.init_state(3))
    state, found = speech.init_state(3), []
    for token in text.unbind(1):
        before = [tensor[1].clone() for tensor in state.tensors()]
        other = token.flip(0)
        speech.step(other, state, least_likely, torch.tensor([True, False, True]))
        for old, tensor in zip(before, state.tensors(), strict=True):
            assert torch.equal(old, tensor[1]), "a paused row's state changed"
        found.append(speech.step(token, state, least_likely)[1])
    assert torch.equal(torch.stack(found), expected[1])


def test_reset_makes_a_row_fresh(speech: SpeechTransformer, text: Tensor) -> None:
    state = speech.init_state(3)
    expected = run(speech, text[:, :30], state)
    state.reset(torch.tensor([True, False, False]))
    assert torch.equal(run(speech, text[:, :30], state)[0], expected[0])


def test_prefill_equals_steps(speech: SpeechTransformer, text: Tensor) -> None:
    stepped, filled = speech.init_state(3), speech.init_state(3)
    codes = run(speech, text[:, :20], stepped)
    speech.prefill(text[:, :20], codes, filled)
    assert_same(filled, stepped)
    expected = run(speech, text[:, 20:], stepped)
    assert torch.equal(run(speech, text[:, 20:], filled), expected)


def test_prefill_leaves_other_rows_alone(speech: SpeechTransformer, text: Tensor) -> None:
    state, expected = speech.init_state(3), speech.init_state(1)
    mask = torch.tensor([False, True, False])
    codes = torch.randint(9, (3, 20, 3))
    speech.prefill(text[:, :20], codes, state, mask)
    speech.prefill(text[1:2, :20], codes[1:2], expected)
    for one, all_rows in zip(expected.tensors(), state.tensors(), strict=True):
        torch.testing.assert_close(one[0], all_rows[1], atol=1e-5, rtol=1e-5)
        assert not all_rows[[0, 2]].any()


def test_who_is_hushed_falls_silent_and_speaks_again(
    speech: SpeechTransformer, text: Tensor, tokenizer: DialogueTokenizer
) -> None:
    state = speech.init_state(2)
    row = text[:1].repeat(2, 1)
    run(speech, row[:, :16], state)
    speech.hush(state, torch.tensor([True, False]))
    pad = torch.full((2, 8), tokenizer.id_of(PAD))
    codes = run(speech, pad, state)
    assert (codes[0] == speech.silence).all()
    assert (codes[1, 0] != speech.silence).any()
    again = run(speech, text[1:2].repeat(2, 1), state)
    assert (again[0] != speech.silence).any()


def test_parts_must_fit() -> None:
    depth = DepthConfig(8, 16, 1, 2, 24, 3, 9)
    with pytest.raises(AssertionError, match=r"depth.input_dim 8 must be transformer.dim 16"):
        SpeechConfig(READER, SPEECH.transformer, depth)


# Data


def shard_row(**changes: Any) -> dict[str, Any]:
    """Two turns, the second one brisk and cut off in its third word."""
    words = [("Hello", 1.0, 1.3), ("there.", 1.3, 1.8), ("One", 3.0, 3.2), ("moment", 3.2, 3.5)]
    row: dict[str, Any] = {
        "name": "one",
        "frames": FRAMES,
        "agent_words": [dict(zip(("text", "start_s", "end_s"), w, strict=True)) for w in words],
        "agent_unsaid_words": [],
        "agent_turns": [
            {"start_s": 1.0, "end_s": 1.8, "style": "neutral"},
            {"start_s": 3.0, "end_s": 3.5, "style": "brisk"},
        ],
        "agent_codes": np.arange(FRAMES * 3).reshape(FRAMES, 3).tolist(),
    }
    return row | changes


def test_text_is_laid_ahead_of_its_sound(tokenizer: DialogueTokenizer) -> None:
    text = lay_text(shard_row(), tokenizer, lead=3)
    pad = tokenizer.id_of(PAD)
    for word, start_s in (("Hello", 1.0), ("One", 3.0)):
        tokens = tokenizer.encode(f" {word}")
        first = int(start_s / FRAME_S) - 3
        assert text[first : first + len(tokens)].tolist() == tokens
    assert text[int(3.0 / FRAME_S) - 4] == tokenizer.id_of("<brisk>")
    assert (text[:9] == pad).all()
    kept = [token for token in text.tolist() if token != pad]
    assert tokenizer.decode(kept) == " Hello there.<brisk> One moment"


def test_rows_become_their_spoken_frames(
    speech: SpeechTransformer, tokenizer: DialogueTokenizer
) -> None:
    early = {"agent_words": shard_row()["agent_words"][:2], "frames": 20}
    rows = [shard_row(), shard_row(**early, agent_codes=np.ones((20, 3), int).tolist())]
    silence = np.array([8, 7, 6], np.int16)
    long, short = read_rows(rows, tokenizer, speech.reader, silence)
    frame = long.codes[:, 0] // 3  # as the codes of the row were made
    assert frame[0] == int(1.0 / FRAME_S) - READER.early
    assert len(short.codes) == (frame < 20).sum()
    is_first = np.diff(frame, prepend=-9) != 1
    assert is_first.sum() == 2
    assert (long.previous[is_first] == silence).all()
    assert np.array_equal(long.previous[~is_first], long.codes[~is_first] - 3)


def test_where_a_turn_is_cut_off_nothing_is_learned(
    speech: SpeechTransformer, tokenizer: DialogueTokenizer
) -> None:
    unsaid = [{"text": "please", "start_s": 3.5, "end_s": 3.9}]
    silence = np.array([8, 7, 6], np.int16)
    rows = [shard_row(), shard_row(agent_unsaid_words=unsaid)]
    whole, cut = read_rows(rows, tokenizer, speech.reader, silence)
    frames = {*(whole.codes[:, 0] // 3)} - {*(cut.codes[:, 0] // 3)}
    assert {*range(int(3.2 / FRAME_S), int(3.5 / FRAME_S) + 3)} <= frames
    assert min(frames) >= int(3.2 / FRAME_S) - 1


def test_lengths_of_phones_are_found_in_lengths_of_words(
    speech: SpeechTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = {"ab": [1, 2, 0], "b": [2, 0, 0], "abb": [1, 2, 2]}
    by_letters = {tuple(letters_of(word)): phones for word, phones in spelled.items()}

    def spell(letters: Tensor) -> Tensor:
        rows = [tuple(row[row > 0].tolist()) for row in letters]
        return torch.tensor([by_letters[row] for row in rows])

    monkeypatch.setattr(speech.reader.spelling, "forward", spell)
    lengths_s = {"ab": 0.2, "b": 0.15, "abb": 0.35}
    words = [
        {"text": word, "start_s": 1.0, "end_s": 1.0 + length_s}
        for word, length_s in lengths_s.items()
    ]
    found = phone_seconds([{"agent_words": words * 2000}], speech.reader)
    assert found[:4].tolist() == pytest.approx([0.0, 0.05, 0.15, 0.08], abs=2e-3)
