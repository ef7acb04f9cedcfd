"""The frozen suites: what they ask, that no training script asks it, and how they are scored."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from data.corpus import RESERVED_VOICES
from data.dialogue import AGENT, USER, Action, Dialogue, Spell
from data.line import Line
from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import Domain, load_domain
from data.scripts.grammar import skeleton
from data.scripts.scene import load_scenes
from data.scripts.script import Said, Script
from data.scripts.turn import may_be_named
from data.suites.suite import Suite, Suites, load_suites
from train.scoring.dialogue_score import Performance, oracle, score, standing

SUITES = load_suites("front_desk")
EACH = pytest.mark.parametrize("name", SUITES.suites)
DOMAIN = load_domain("front_desk")
CONF = Path(__file__).resolve().parents[1] / "conf"


def scripts(suite: Suite) -> list[Script]:
    return [suite.script(number) for number in range(suite.items)]


# What they ask


@EACH
def test_a_suite_is_what_was_frozen(name: str) -> None:
    SUITES.suites[name].check()


def test_a_suite_that_changed_says_so() -> None:
    changed = dataclasses.replace(SUITES.suites["tic"], items=3)
    with pytest.raises(ValueError, match=r"suite tic: its scripts hash to \w{64}, frozen was"):
        changed.check()
    with pytest.raises(ValueError, match=r"item 200 of tic: must be in 0\.\.199"):
        SUITES.suites["tic"].script(200)
    with pytest.raises(ValueError, match="suites of 'bakery': must be one of"):
        load_suites("bakery")


def test_the_suites_are_as_large_as_they_must_be_and_have_every_scene() -> None:
    sizes = {name: suite.items for name, suite in SUITES.suites.items()}
    for names, least in (
        (("pause", "turn_end", "barge_in", "single", "chained", "correction", "faults"), 300),
        (("backchannel", "tic", "side_talk", "noise", "listening"), 200),
        (("no_call",), 500),
        (("urgency", "confirmation", "barge_in_during_call"), 300),
    ):
        assert all(sizes[name] >= least for name in names)
    assert {s for suite in SUITES.suites.values() for s in suite.scenes} >= {*load_scenes()} - {
        "unhurried"
    }


def asked(found: list[Script]) -> tuple[set[str], set[str]]:
    """The caller's templates that are his own, and the arguments that are asked for."""
    turns = [
        step.turn
        for script in found
        for step in script.steps
        if isinstance(step, Said) and step.side == "user"
    ]
    templates = {template for turn in turns for template in turn.templates} - conventional(DOMAIN)
    calls = [call for turn in turns for call in turn.calls if call.kind in ("call", "revise")]
    named = {
        f"{call.tool} {sorted(call.arguments.items())}"
        for call in calls
        if not is_shared(call.tool, call.arguments)
    }
    return templates, named


def conventional(domain: Domain) -> set[str]:
    """What callers say in the same few words everywhere ("yes", "thank you")."""
    groups = (domain.talk, domain.answer)
    return {
        skeleton(phrasing)
        for group in groups
        for found in group.values()
        for phrasing in found
        if len(phrasing) < 4
    }


def is_shared(tool: str, arguments) -> bool:
    """Whether there are too few values of a call to keep some for tests."""
    declared = DOMAIN.tools[tool]
    splits = ("train", "test")
    return all(may_be_named(DOMAIN, declared, arguments, split) for split in splits)


@pytest.fixture(scope="module")
def training() -> tuple[set[str], set[str]]:
    rng = random.Random(0)
    found = [compose(DOMAIN, "train", draw_scenes(DOMAIN, 4, rng), rng) for _ in range(2500)]
    return asked(found)


@EACH
def test_no_training_script_could_be_an_item(name: str, training) -> None:
    found = scripts(SUITES.suites[name])
    templates, named = asked(found)
    seen_templates, seen_named = training
    assert len(seen_templates) > 900
    assert len(seen_named) > 1500
    assert templates.isdisjoint(seen_templates)
    assert named.isdisjoint(seen_named)
    for script in found:
        assert script.split == "test"
        for step in script.steps:
            for call in step.turn.calls if isinstance(step, Said) else ():
                if call.kind in ("call", "revise") and not is_shared(call.tool, call.arguments):
                    tool = DOMAIN.tools[call.tool]
                    assert not may_be_named(DOMAIN, tool, call.arguments, "train")


def test_the_callers_of_tests_are_in_no_corpus() -> None:
    held_out = {voice for group in ("new", "new_engine", "human") for voice in SUITES.voices[group]}
    assert held_out >= {*SUITES.voices["new_debian"]}
    for path in (CONF / "corpus").glob("*.yaml"):
        read = yaml.safe_load(path.read_text())
        voices = {*read.get("user_voices", ()), *read.get("agent_voices", ())}
        voices |= {*read.get("train_sentences", ())}
        parts = {part for voice in voices for part in voice.replace("+", ":").split(":")[1:]}
        assert parts.isdisjoint({voice.partition(":")[2] for voice in held_out})
    everyone = {voice for listed in SUITES.voices.values() for voice in listed}
    assert everyone.isdisjoint(RESERVED_VOICES)


def test_an_item_is_said_alike_twice_and_over_the_line_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    suite, (agent, *_) = SUITES.suites["side_talk"], SUITES.voices["agent"]
    voices = SUITES.voices["new_debian"]
    clean, again, noisy = (
        suite.dialogue(7, voices, agent, SUITES.lines[line]) for line in ("clean", "clean", "10db")
    )
    assert np.array_equal(clean.audio, again.audio)
    assert clean.actions == noisy.actions
    assert np.array_equal(clean.audio[AGENT], noisy.audio[AGENT])
    assert np.square(noisy.audio[USER]).mean() > np.square(clean.audio[USER]).mean()
    assert "flite:awb" in clean.source


# How they are scored


@EACH
def test_the_labels_score_full_marks_and_others_calls_none(name: str) -> None:
    suite = SUITES.suites[name]
    last: list[tuple[list[str], tuple[Action, ...]]] = [calls_of_another_suite(SUITES, name)]
    for number in range(suite.items):
        dialogue = suite.dialogue(number, ["silent"], "silent", Line())
        labels = oracle(dialogue)
        assert score(dialogue, labels).passed, number
        wanted = sorted(standing(labels.actions).values())
        others = next(actions for calls, actions in reversed(last) if calls != wanted)
        assert not score(dialogue, dataclasses.replace(labels, actions=others)).passed, number
        last = [*last[-3:], (wanted, labels.actions)] if last[-1][0] != wanted else last


def calls_of_another_suite(suites: Suites, name: str) -> tuple[list[str], tuple[Action, ...]]:
    """Some call that is right in none of this one's items: made twice."""
    other = suites.suites["single" if name != "single" else "faults"]
    actions = oracle(other.dialogue(1, ["silent"], "silent", Line())).actions
    twice = (*actions, *(a._replace(number=9, time_s=a.time_s + 0.1) for a in actions))
    return sorted(standing(twice).values()), twice


ORDER = Action(2.0, "call", 1, "order_status", {"order_id": "12345"})
FIXED = Action(3.0, "revise", 2, "order_status", {"order_id": "12354"}, 1)
RESULT = Action(4.0, "result", 2, "order_status", {"order_id": "12354"})


def dialogue_of(*spells: Spell, actions: tuple[Action, ...] = ()) -> Dialogue:
    audio = np.zeros((2, 12 * 24_000), np.float32)
    return Dialogue("test", audio, ((), ()), "test", "CC0", actions, spells)


ASKED = Spell(USER, 1.0, 3.0)
ANSWERED = Spell(AGENT, 3.3, 8.0)


def test_what_stands_at_the_end_counts_and_not_the_way_there() -> None:
    dialogue = dialogue_of(ASKED, ANSWERED, actions=(ORDER, FIXED, RESULT))
    speech = ((3.3, 8.0),)
    at_once = FIXED._replace(kind="call", number=1, revises=0, time_s=3.2)
    assert score(dialogue, Performance((at_once,), speech)).passed, "it waited for the correction"
    assert score(dialogue, Performance((at_once,), speech)).need_s == (pytest.approx(0.2),)
    stale = score(dialogue, Performance((ORDER,), speech))
    assert (stale.missing, stale.extra, stale.passed) == (1, 1, False)
    twice = score(dialogue, Performance((ORDER, FIXED, at_once._replace(number=3)), speech))
    assert (twice.missing, twice.extra) == (0, 1)
    cancel = Action(3.5, "cancel", 2, "order_status", {})
    assert score(dialogue, Performance((ORDER, FIXED, cancel), speech)).missing == 1
    confirm = Action(3.5, "confirm", 2, "order_status", {})
    assert not score(dialogue, Performance((ORDER, FIXED, confirm), speech)).passed
    handoff = Action(3.5, "handoff", 0, "handoff", {"reason": "policy"})
    assert score(dialogue, Performance((ORDER, FIXED, handoff), speech)).extra == 1


def test_turns_are_to_be_answered_and_pauses_to_be_left() -> None:
    dialogue = dialogue_of(ASKED, ANSWERED)
    prompt = score(dialogue, Performance((), ((3.5, 8.0),)))
    assert (prompt.passed, prompt.gaps_s) == (True, (pytest.approx(0.5),))
    assert score(dialogue, Performance((), ((2.9, 8.0),))).gaps_s == (pytest.approx(-0.1),)
    for speech in ((), ((7.0, 8.0),), ((0.0, 0.5),)):
        assert score(dialogue, Performance((), speech)).answered == (False,)
    hasty = score(dialogue, Performance((), ((2.0, 8.0),)))
    assert (hasty.take_overs, hasty.passed) == (1, False)
    listening = score(dialogue, Performance((), ((2.0, 2.4), (3.3, 8.0))))
    assert (listening.take_overs, listening.passed) == (0, True)


def test_interruptions_silence_the_agent_and_asides_do_not() -> None:
    interrupted = dialogue_of(ASKED, Spell(AGENT, 3.3, 5.16), Spell(USER, 5.0, 7.0))
    for end_s, yields in ((5.3, True), (6.5, False)):
        found = score(interrupted, Performance((), ((3.3, end_s),)))
        assert (found.yielded, found.stops_s) == ((yields,), (pytest.approx(end_s - 5.0),))
        assert found.passed == yields
    aside = Spell(USER, 5.0, 5.4, manner="backchannel")
    for manner in ("backchannel", "side_talk", "background"):
        dialogue = dialogue_of(ASKED, ANSWERED, aside._replace(manner=manner))
        for end_s, keeps in ((8.0, True), (6.1, True), (5.3, False), (4.5, False)):
            found = score(dialogue, Performance((), ((3.3, end_s),)))
            assert (found.kept, found.passed) == ((keeps,), keeps), (manner, end_s)
