"""Whole conversations: composed from a domain, spoken by voices, with calls and results in time."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from data.dialogue import AGENT, USER, Action, Dialogue
from data.perform import perform
from data.scripts.compose import compose
from data.scripts.domain import load_domain
from data.scripts.scene import load_scenes
from data.scripts.script import Heard, Ran, Said, Script
from data.timeline import Cast
from data.voices import SAMPLE_RATE_HZ
from model.frame import FRAME_S, USERS

SILENT = Cast("silent", "silent", "silent")
SEEDS = range(6)


def performed(scene: str, seed: int, cast: Cast = SILENT) -> tuple[Script, Dialogue]:
    rng = random.Random(seed)
    script = compose(load_domain("front_desk"), "train", [scene], rng)
    return script, perform(script, cast, f"{scene}-{seed}", rng)


@pytest.fixture(scope="module")
def dialogues() -> list[tuple[Script, Dialogue]]:
    """Every scene of the front desk, without sound."""
    return [performed(scene, seed) for scene in load_scenes() for seed in SEEDS]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory):
    """Some of them with sound, from a cache of their own."""
    cast = Cast("flite:slt", "flite:rms", "flite:kal16", user_speed=1.1)
    scenes = ("plain", "corrected_late", "barge_in", "backchannel", "cough", "overheard", "paused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {scene: performed(scene, 1, cast) for scene in scenes}


def made(dialogue: Dialogue) -> list[Action]:
    return [action for action in dialogue.actions if action.kind != "result"]


def test_every_call_is_right_at_the_end_of_a_word_of_the_callers(dialogues) -> None:
    seen = set()
    for script, dialogue in dialogues:
        ends_s = np.array([word.end_s for word in dialogue.words[USER]])
        planned = [
            call for step in script.steps if isinstance(step, Said) for call in step.turn.calls
        ]
        found = [action for action in made(dialogue) if action.tool != "handoff"]
        wanted = [call for call in planned if call.kind != "handoff"]
        assert [(a.kind, a.number) for a in found] == [(c.kind, c.number) for c in wanted]
        assert [a.arguments for a in found] == [call.arguments for call in wanted]
        for action in found:
            assert np.abs(ends_s - action.time_s).min() < 1e-6
            assert max(action.known_s.values(), default=0.0) <= action.time_s + 1e-9
            seen.add(action.kind)
    assert seen == {"call", "revise", "cancel", "confirm"}


def test_results_come_after_what_they_answer_and_are_told_after_that(dialogues) -> None:
    told = 0
    for script, dialogue in dialogues:
        latency_s = {step.number: step.latency_s for step in script.steps if isinstance(step, Ran)}
        for result in (action for action in dialogue.actions if action.kind == "result"):
            mine = [a for a in made(dialogue) if a.number == result.number]
            right_s = max(action.time_s for action in mine)
            assert result.time_s == pytest.approx(right_s + latency_s[result.number])
            replies = [s for s in dialogue.spells if s.side == AGENT and s.manner == "turn"]
            assert any(spell.start_s > result.time_s for spell in replies)
            told += 1
    assert told > 100


def test_nothing_comes_back_for_what_was_replaced_or_taken_back_before(dialogues) -> None:
    dropped = 0
    for script, dialogue in dialogues:
        ended_s = {a.revises: a.time_s for a in dialogue.actions if a.kind == "revise"}
        ended_s |= {a.number: a.time_s for a in dialogue.actions if a.kind == "cancel"}
        results = {a.number: a.time_s for a in dialogue.actions if a.kind == "result"}
        for number in {step.number for step in script.steps if isinstance(step, Ran)} & {*ended_s}:
            assert results.get(number, 0.0) < ended_s[number]
            dropped += number not in results
    assert dropped


def test_who_takes_the_floor_silences_the_other_within_two_frames(dialogues) -> None:
    cut = 0
    for script, dialogue in dialogues:
        overs = [s for s in script.steps if isinstance(s, Said) and s.over is not None]
        for step in overs:
            starts = [
                spell
                for spell in dialogue.spells
                if spell.side == USER and spell.manner == step.manner
            ]
            for spell in starts:
                others = [
                    other
                    for other in dialogue.spells
                    if other.side == AGENT and other.start_s < spell.start_s < other.end_s
                ]
                if step.takes_floor and step.side == "user":
                    # One that had all but ended may end by itself; the others stop.
                    assert all(other.end_s - spell.start_s < 0.41 for other in others)
                    cut += len(others)
                elif step.side == "user":  # the others go on, unless they had no more to say
                    unsaid = [word.start_s for word in dialogue.unsaid]
                    for other in others:
                        is_cut = any(other.start_s < start_s < spell.end_s for start_s in unsaid)
                        assert other.end_s > spell.end_s - 0.4 or not is_cut
        if overs and overs[0].takes_floor and overs[0].side == "user":
            frame = int((spell_of(dialogue, overs[0]) + 0.17) / FRAME_S)
            assert dialogue.floor()[frame] == USERS
    assert cut >= 10


def spell_of(dialogue: Dialogue, step: Said) -> float:
    """When a turn of the script begins."""
    words = [word.text for word in dialogue.words[USER]]
    first = [piece.text for piece in step.turn.pieces]
    for place in range(len(words)):
        if words[place : place + len(first)] == first or words[place] == first[0]:
            begins_s = dialogue.words[USER][place].start_s
            if any(s.start_s == begins_s and s.manner == step.manner for s in dialogue.spells):
                found = begins_s
    return found


def test_gaps_are_short_and_the_agent_begins_in_nobodys_speech(dialogues) -> None:
    gaps: dict[int, list[float]] = {AGENT: [], USER: []}
    for _, dialogue in dialogues:
        turns = [spell for spell in dialogue.spells if spell.manner == "turn"]
        for one, other in itertools.pairwise(turns):
            if one.side != other.side:
                gaps[other.side].append(other.start_s - one.end_s)
    assert min(gaps[AGENT]) >= 0.15, "the agent never begins before the caller has ended"
    assert 0.2 < np.median(gaps[AGENT]) < 0.4
    assert 0.15 < np.mean(np.array(gaps[USER]) < 0) < 0.45, "callers do, now and then"


@pytest.mark.parametrize(("latency_s", "is_waited_for"), [(0.2, False), (6.0, True)])
def test_a_result_that_takes_its_time_is_waited_for_with_a_word(
    latency_s: float, is_waited_for: bool
) -> None:
    script, _ = performed("plain", 3)
    steps = tuple(
        replace(step, latency_s=latency_s) if isinstance(step, Ran) else step
        for step in script.steps
    )
    (ran,) = (step for step in steps if isinstance(step, Ran))
    assert ran.wait is not None
    dialogue = perform(replace(script, steps=steps), SILENT, "slow", random.Random(0))
    (result,) = (action for action in dialogue.actions if action.kind == "result")
    (call,) = made(dialogue)
    said = [w.text for w in dialogue.words[AGENT] if call.time_s < w.start_s < result.time_s]
    assert " ".join(said) == (ran.wait.text if is_waited_for else "")


def test_the_sound_is_where_the_words_are(heard) -> None:
    for scene in ("plain", "corrected_late", "barge_in", "backchannel", "paused"):
        _, dialogue = heard[scene]
        for side in (AGENT, USER):
            power = np.square(dialogue.audio[side])
            within = sum(
                power[int(w.start_s * SAMPLE_RATE_HZ) : int(w.end_s * SAMPLE_RATE_HZ)].sum()
                for w in dialogue.words[side]
            )
            assert within > 0.95 * power.sum(), scene


def test_what_others_say_is_on_the_users_channel_and_none_of_his_words(heard) -> None:
    for scene in ("cough", "overheard"):
        script, dialogue = heard[scene]
        (spell,) = (spell for spell in dialogue.spells if spell.manner == "background")
        part = dialogue.audio[:, int(spell.start_s * 24_000) : int(spell.end_s * 24_000)]
        assert np.square(part[USER]).mean() > 1e-6
        (step,) = (step for step in script.steps if isinstance(step, Heard))
        own = " ".join(word.text for word in dialogue.words[USER])
        assert (step.turn is None) == (scene == "cough")
        assert step.turn is None or step.turn.text not in own
        assert scene == "cough" or "flite" in dialogue.licence


def test_the_same_seed_gives_the_same_dialogue(heard) -> None:
    cast = Cast("flite:slt", "flite:rms", "flite:kal16", user_speed=1.1)
    _, first = heard["barge_in"]
    _, again = performed("barge_in", 1, cast)
    assert np.array_equal(again.audio, first.audio)
    assert (again.words, again.actions, again.spells) == (
        first.words,
        first.actions,
        first.spells,
    )
    assert again.script == first.script
    _, other = performed("barge_in", 2)
    assert other.script != first.script


def test_a_dialogue_says_what_was_declared_and_under_which_licences(dialogues) -> None:
    for script, dialogue in dialogues:
        assert dialogue.system == script.system
        assert [tool in dialogue.tools for tool in script.tools] == [True] * len(script.tools)
        assert '"slot"' not in dialogue.tools, "that is ours"
    (_, music) = performed("music", 0)
    assert "CC-BY-SA-3.0" in music.licence
