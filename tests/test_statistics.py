"""Figures of a corpus from dialogues whose gaps are known, and words against an aligner."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data import dialogue_corpus, timeline
from data.check_words import Difference, Found, Unheard, as_markdown, check, figures, turns
from data.dialogue import AGENT, USER, Action, Dialogue, Spell
from data.dialogue_corpus import DialogueCorpus
from data.gaps import gap_figures
from data.line import Line, LineShares
from data.render import Placed, render
from data.scripts.spoken_turn import speak
from data.scripts.turn import Piece, Turn
from data.shards import write_shard
from data.statistics import describe
from data.turn_taking import Stretch, gaps_s, left_s, speech_s, stretches, turns_of
from data.voices import say
from data.voices.utterance import SAMPLE_RATE_HZ, Word
from data.voices.words import words_by_comparison
from model.codec import Codec
from model.frame import FRAME_RATE_HZ
from model.streaming import State

SECONDS = 12.0
# (side, manner, words): what is said when. The caller pauses for a second within his first turn, in
# which the agent makes a backchannel; he cuts in at 5.9 s; at 9.5 s he speaks to somebody else.
SAID: tuple[tuple[Any, ...], ...] = (
    (AGENT, "turn", ("Hello", 0.5, 1.0), ("there.", 1.1, 1.5)),
    (USER, "turn", ("Book", 1.8, 2.2), ("Monday,", 3.2, 3.6), ("please.", 3.6, 4.0)),
    (AGENT, "backchannel", ("Mhm.", 2.5, 2.9)),
    (AGENT, "turn", ("Sure,", 4.2, 5.0), ("anything", 5.0, 6.0)),
    (USER, "turn", ("No,", 5.9, 6.4), ("bye.", 6.4, 7.0)),
    (AGENT, "turn", ("Goodbye.", 7.5, 8.5)),
    (USER, "side_talk", ("Coming.", 9.5, 10.0)),
)  # fmt: skip
CALL = Action(3.5, "call", 1, "book", {"day": "monday"}, known_s={"day": 3.5})
ACTIONS = (
    CALL,
    CALL._replace(time_s=3.61, kind="revise", number=2, revises=1),
    CALL._replace(time_s=4.0, kind="call", number=3),
    CALL._replace(time_s=4.5, kind="result", number=2, arguments={"error": "timeout"}),
    CALL._replace(time_s=4.6, kind="result", number=3, arguments={"day": "monday"}),
)
STEP = {"step": "Said", "side": "user", "manner": "turn", "over": 0.5}
SCRIPT = {"style": "calm", "scenes": ["plain", "barge_in"], "steps": [STEP, {"step": "Silence"}]}


def dialogue(script: Any = SCRIPT) -> Dialogue:
    words: tuple[list[Word], list[Word]] = ([], [])
    spells = []
    for side, manner, *said in SAID:
        words[side].extend(Word(*word) for word in said)
        spells.append(Spell(side, said[0][1], said[-1][2], "brisk", manner))
    return Dialogue(
        "known",
        np.zeros((2, round(SECONDS * SAMPLE_RATE_HZ)), np.float32),
        (tuple(words[AGENT]), tuple(words[USER])),
        source="front_desk, festival:slt_hts and espeak:en-us+f3",
        licence="none",
        actions=ACTIONS,
        spells=tuple(spells),
        script=json.dumps(script) if script else "",
    )


class NoCodec(Codec[State]):
    """Every code is 0."""

    num_codebooks, codebook_size, latent_dim, delay_samples = 2, 4, 1, 0

    def init_state(self, batch: int) -> State:
        return State()

    def hear(self, pcm: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        return pcm.new_zeros(len(pcm), 1)

    def quantize(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(len(latent), 2, dtype=torch.int64)

    def decode(self, codes: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        raise NotImplementedError


def describe_all(dialogues: Sequence[Dialogue], out: Path) -> str:
    write_shard(out.parent / "shard-00000.parquet", dialogues, NoCodec(), with_latents=False)
    return describe(out.parent, out)


def stretches_of(one: Dialogue) -> list[Stretch]:
    agent, user = ([word._asdict() for word in words] for words in one.words)
    return stretches((agent, user), one.floor().tolist())


# Turns


def test_stretches_are_turns_backchannels_and_what_is_said_aside() -> None:
    found = [(s.side, s.start_s, s.end_s, s.kind) for s in stretches_of(dialogue())]
    assert found == [
        (AGENT, 0.5, 1.5, "turn"),
        (USER, 1.8, 2.2, "turn"),
        (AGENT, 2.5, 2.9, "backchannel"),
        (USER, 3.2, 4.0, "turn"),
        (AGENT, 4.2, 6.0, "turn"),
        (USER, 5.9, 7.0, "turn"),
        (AGENT, 7.5, 8.5, "turn"),
        (USER, 9.5, 10.0, "aside"),
    ]


def test_a_turn_goes_on_over_a_pause_and_gaps_are_those_between_turns() -> None:
    found = turns_of(stretches_of(dialogue()))
    times = [(turn.side, turn.start_s, turn.end_s) for turn in found]
    assert times == [(0, 0.5, 1.5), (1, 1.8, 4.0), (0, 4.2, 6.0), (1, 5.9, 7.0), (0, 7.5, 8.5)]
    assert gaps_s(found, USER) == pytest.approx([0.3, -0.1])
    assert gaps_s(found, AGENT) == pytest.approx([0.2, 0.5])


def test_what_ends_within_the_others_turn_takes_no_floor() -> None:
    said = [Stretch(AGENT, 0, 3), Stretch(USER, 1, 2), Stretch(AGENT, 3.1, 4), Stretch(USER, 5, 6)]
    assert turns_of(said) == [Stretch(AGENT, 0, 4), Stretch(USER, 5, 6)]


@pytest.mark.parametrize(
    ("time_s", "left"), [(1.8, 2.2), (2.5, 1.5), (3.6, 0.4), (4.0, 0.0), (4.1, 0.0), (5.9, 1.1)]
)
def test_what_is_left_of_the_callers_turn(time_s: float, left: float) -> None:
    assert left_s(turns_of(stretches_of(dialogue())), time_s) == pytest.approx(left)


def test_speech_and_overlap_count_every_word() -> None:
    # Agent 1 + 0.4 + 1.8 + 1 s, user 0.4 + 0.8 + 1.1 + 0.5 s, 0.1 s of which both.
    assert speech_s(stretches_of(dialogue())) == pytest.approx((6.9, 0.1))
    assert speech_s([Stretch(AGENT, 0, 2)]) == (2, 0)


def test_gap_figures_are_percentiles_and_shares() -> None:
    offsets_ms = (-300, -100, 50, 150, 160, 400, 900)
    pairs = [[Stretch(USER, 0, 1), Stretch(AGENT, 1 + ms / 1000, 3)] for ms in offsets_ms]
    found = {name: figure.value for name, figure in gap_figures(pairs).items()}
    assert not any("agent_to_user" in name for name in found)
    expected = {
        "median": 150,
        "p25": -25,
        "p75": 280,
        "mean": 180,
        "mode": 150,
        "below_0ms_share": 2 / 7,
        "below_200ms_share": 5 / 7,
        "below_500ms_share": 6 / 7,
    }
    for name, value in expected.items():
        assert found[f"gap_user_to_agent_{name}"] == pytest.approx(value), name


# The report


def test_a_corpus_is_described(tmp_path: Path) -> None:
    out = tmp_path / "statistics.json"
    markdown = describe_all([dialogue(), dialogue()], out)
    report = json.loads(out.read_text())
    assert report["suite"] == "dialogue_statistics"
    assert set(report) == {*"suite command commit machine load seconds metrics".split()}
    found = {name: figure["value"] for name, figure in report["metrics"].items()}
    expected = {
        "hours": 2 * SECONDS / 3600,
        "dialogues": 2,
        "words_agent": 12,
        "words_user": 12,
        "turns_per_minute": 5 / SECONDS * 60,
        "backchannels_agent": 2,
        "backchannels_user": 0,
        "interruptions": 2,
        "silence_share": 1 - 6.9 / SECONDS,
        "overlap_share": 0.1 / SECONDS,
        "overlap_speech_share": 0.1 / 6.9,
        "early_calls_share": 1 / 3,
        "hours_user_voice_espeak_en_us_f3": 2 * SECONDS / 3600,
        "agent_voice_festival_slt_hts": 2,
        "user_style_calm": 2,
        "agent_style_brisk": 8,
        "scene_barge_in": 2,
        "tool_book": 6,
        "action_call": 4,
        "action_revise": 2,
        "action_result": 4,
        "action_handoff": 0,
        "error_timeout": 2,
        "gap_agent_to_user_median": 100,
        "gap_user_to_agent_median": 350,
    }
    assert SECONDS == 150 / FRAME_RATE_HZ  # whole frames
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert out.with_suffix(".md").read_text() == markdown
    assert "| median, ms | 100 | 350 |" in markdown
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_dialogues_without_a_script_or_turns_are_described_too(tmp_path: Path) -> None:
    silent = dataclasses.replace(
        dialogue(None), words=((), ()), spells=(), actions=(), source="recording"
    )
    markdown = describe_all([silent], tmp_path / "statistics.json")
    metrics = json.loads((tmp_path / "statistics.json").read_text())["metrics"]
    assert metrics["silence_share"]["value"] == 1
    assert metrics["interruptions"]["value"] == 0
    assert "early_calls_share" not in metrics
    assert "people" not in markdown


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*\.parquet"):
        describe(tmp_path, tmp_path / "statistics.json")
    with pytest.raises(ValueError, match=r"must end in \.json"):
        describe(tmp_path, tmp_path / "statistics.txt")


# Words against an aligner


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory):
    """Two turns in voices that tell their phones, and one that says other words than its labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        placed = [
            Placed(side, speak(Turn(tuple(map(Piece, text.split()))), voice), at_s)
            for side, voice, at_s, text in (
                (AGENT, "festival:slt_hts", 0.2, "Good morning, how can I help you?"),
                (USER, "flite:rms", 3.0, "Could you tell me the status of my order, please?"),
                (USER, "flite:rms", 7.0, "That is all, thank you very much."),
            )
        ]
        yield Dialogue(
            "spoken",
            render(placed, [], 10.0),
            (
                tuple(placed[0].words()),
                (*placed[1].words(), *placed[2].words()),
            ),
            source="test, festival:slt_hts and flite:rms",
            licence="none",
            spells=tuple(turn.spell for turn in placed),
        )


VOICES = ("festival:slt_hts", "flite:rms")


def test_every_word_belongs_to_one_turn_and_may_be_heard_beyond_it(spoken: Dialogue) -> None:
    found = list(turns(spoken))
    assert [len(turn.words) for turn in found] == [7, 10, 7]
    _, second, third = found
    assert second.start_s == pytest.approx(second.spell.start_s - 0.3)
    assert second.end_s == pytest.approx(min(second.spell.end_s + 0.3, third.spell.start_s))


def test_labels_agree_with_the_aligner(spoken: Dialogue) -> None:
    named = figures(check(spoken, VOICES))
    assert named["words"].value == 24
    assert named["words_flite_rms"].value == 17
    assert named["words_unheard"].value == 0
    assert named["word_start_error_median_ms"].value <= 40
    assert named["word_start_error_p95_ms"].value <= 120
    assert named["word_end_error_median_ms_festival_slt_hts"].value <= 40


def test_labels_that_are_late_show_and_wrong_words_are_counted(spoken: Dialogue) -> None:
    user = spoken.words[USER]
    late = tuple(
        word._replace(start_s=word.start_s + 0.08, end_s=word.end_s + 0.08) for word in user
    )
    wrong = tuple(word._replace(text="Wednesday") for word in spoken.words[AGENT])
    changed = dataclasses.replace(spoken, words=(wrong, late))
    moved = tuple(
        spell._replace(start_s=spell.start_s + 0.08) if spell.side == USER else spell
        for spell in spoken.spells
    )
    named = figures(check(dataclasses.replace(changed, spells=moved), VOICES))
    right = figures(check(spoken, VOICES))
    shift = "word_start_shift_median_ms_flite_rms"
    assert named[shift].value == pytest.approx(right[shift].value + 80, abs=5)
    assert named["words_unheard"].value == 7
    assert named["words_unheard_festival_slt_hts"].value == 7
    assert "word_start_error_median_ms_festival_slt_hts" not in named


def test_a_references_silence_is_not_laid_on_speech(spoken: Dialogue) -> None:
    reference = say("That is all, thank you very much.", "flite:slt")
    known = say(reference.text, "flite:rms")
    begins = round(known.words[0].start_s * SAMPLE_RATE_HZ)
    assert begins > 0.1 * SAMPLE_RATE_HZ
    found = words_by_comparison(known.audio[begins:], reference)
    assert found[0].start_s == pytest.approx(0, abs=0.02)
    errors_s = [
        one.start_s + begins / SAMPLE_RATE_HZ - label.start_s
        for one, label in zip(found, known.words, strict=True)
    ]
    assert np.median(np.abs(errors_s)) <= 0.03


def test_espeak_is_told_apart() -> None:
    differences = [
        Difference(voice, "word", 0.001 * error_ms, 0.0)
        for voice, error_ms in (("espeak:en-us", 300), ("flite:rms", -10), ("flite:slt", 20))
    ]
    found = Found(differences, [Unheard("espeak:en-us", 3, "'three words here' is not heard")])
    named = {name: figure.value for name, figure in figures(found).items()}
    assert named["word_start_error_median_ms"] == pytest.approx(20)
    assert named["word_start_error_median_ms_other_engines"] == pytest.approx(15)
    assert named["word_start_shift_median_ms_other_engines"] == pytest.approx(5)
    assert (named["words"], named["words_other_engines"], named["words_unheard"]) == (6, 2, 3)
    assert "| espeak:en-us | 4 | 3 | 300 | 300 | 300 |" in as_markdown(found)


def test_a_dialogue_before_its_line_has_only_not_gone_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[Line] = []

    def unchanged(spoken: Dialogue, line: Line, rng: np.random.Generator) -> Dialogue:
        lines.append(line)
        return spoken

    monkeypatch.setattr(dialogue_corpus, "over_line", unchanged)
    voices = {"silent": 1.0, "silent:other": 1.0}
    corpus = DialogueCorpus(
        "front_desk", "train", ("silent",), voices, (), LineShares(telephone=1.0)
    )
    monkeypatch.setattr(timeline, "speak", lambda turn, *_: speak(turn, "silent"))
    spoken, heard = corpus.spoken(0, 1), corpus.dialogue(0, 1)
    assert [line.is_telephone for line in lines] == [True]
    assert np.array_equal(spoken.audio, heard.audio)
    assert dataclasses.replace(heard, audio=spoken.audio) == spoken
    assert corpus.spoken(0, 2).words != spoken.words
