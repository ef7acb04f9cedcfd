"""Scenes: every kind of conversation, in both domains, with what is right in it."""

import dataclasses
import random
from collections import Counter

import pytest

from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import HANDOFF, load_domain
from data.scripts.scene import Scene, Step, check_talk, load_scenes
from data.scripts.script import Did, Heard, Ran, Said, Script
from data.scripts.turn import Call

PLAYABLE = [
    (domain, name)
    for domain in ("front_desk", "library")
    for name, scene in load_scenes().items()
    if scene.fitting(load_domain(domain))
]
SEEDS = range(12)


def played(domain: str, scene: str, seed: int) -> Script:
    return compose(load_domain(domain), "train", [scene], random.Random(seed))


def calls_of(script: Script) -> list[Call]:
    found: list[Call] = []
    for step in script.steps:
        if isinstance(step, Said):
            found += step.turn.calls
        elif isinstance(step, Did):
            found.append(step.call)
    return found


def kinds(script: Script) -> list[str]:
    return [call.kind for call in calls_of(script)]


@pytest.mark.parametrize(("domain", "name"), PLAYABLE)
def test_every_scene_plays_and_its_numbers_add_up(domain: str, name: str) -> None:
    tools = load_domain(domain).tools
    for seed in SEEDS:
        script = played(domain, name, seed)
        calls = calls_of(script)
        numbered = [call for call in calls if call.kind in ("call", "revise")]
        assert [call.number for call in numbered] == list(range(1, len(numbered) + 1))
        for call in calls:
            assert call.tool in script.tools, "what is not declared is not called"
            if call.kind == "revise":
                assert call.revises in [c.number for c in numbered[: call.number - 1]]
                assert numbered[call.revises - 1].arguments != call.arguments
            if call.kind in ("cancel", "confirm"):
                assert numbered[call.number - 1].tool == call.tool
            if call.kind in ("call", "revise"):
                assert set(tools[call.tool].required) <= set(call.arguments)
        for step in script.steps:
            if isinstance(step, Ran):
                assert step.result.items() >= numbered[step.number - 1].arguments.items()
            if isinstance(step, Said):
                assert step.turn.pieces
                assert "{" not in step.turn.text
                assert step.turn.text[-1] in ".,?!"
                assert step.side == "user" or not step.turn.calls
        assert script.system


@pytest.mark.parametrize(("domain", "name"), PLAYABLE)
def test_the_agent_says_what_came_back_in_words_of_its_own(domain: str, name: str) -> None:
    tools, replies, slots = (getattr(load_domain(domain), f) for f in ("tools", "replies", "slots"))
    for seed in SEEDS:
        script = played(domain, name, seed)
        superseded = {call.revises for call in calls_of(script)}
        for place, step in enumerate(script.steps):
            if not isinstance(step, Ran) or "error" in step.result:
                continue
            later = script.steps[place:]
            said = " ".join(
                s.turn.text.lower() for s in later if isinstance(s, Said) and s.side == "agent"
            )
            for field, slot in replies[step.tool].results.items():
                kind = slots[slot.format(**step.result)]
                forms = (kind.values or {}).get(step.result[field], ())
                assert (
                    step.number in superseded
                    or not forms
                    or any(form.lower() in said for form in forms)
                ), (tools[step.tool].name, field, step.result, said)


def test_a_confirmed_call_runs_only_after_the_yes_that_names_it() -> None:
    domain, seen = load_domain("front_desk"), Counter()
    for name in load_scenes():
        for seed in SEEDS:
            script = played("front_desk", name, seed)
            confirmed: set[int] = set()
            for step in script.steps:
                if isinstance(step, Said):
                    confirmed |= {c.number for c in step.turn.calls if c.kind == "confirm"}
                if isinstance(step, Ran):
                    needs = bool(domain.replies[step.tool].confirm)
                    seen[needs] += 1
                    assert needs == (step.number in confirmed)
    assert min(seen.values()) > 50


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("mentioned", []),
        ("out_of_domain", []),
        ("overheard_alone", []),
        ("undeclared", []),
        ("silence", []),
        ("music", []),
        ("never_mind", ["call", "cancel"]),
        ("never_mind_waiting", ["call", "cancel"]),
        ("refused", ["call", "cancel"]),
        ("confirmed", ["call", "confirm"]),
        ("corrected_late", ["call", "revise"]),
        ("corrected_at_confirmation", ["call", "revise", "confirm"]),
        ("failed_twice", ["call", "call", "handoff"]),
        ("not_understood", ["handoff"]),
        ("human", ["handoff"]),
        ("human_instead", ["handoff"]),
        ("not_allowed", ["call", "confirm", "handoff"]),
    ],
)
def test_what_is_right_in_a_scene(scene: str, expected: list[str]) -> None:
    for seed in SEEDS:
        assert kinds(played("front_desk", scene, seed)) == expected


def test_a_hand_off_says_why_and_ends_the_call() -> None:
    reasons = {}
    for name in ("human", "human_instead", "not_understood", "failed_twice", "not_allowed"):
        script = played("front_desk", name, 0)
        (call,) = (call for call in calls_of(script) if call.kind == HANDOFF)
        reasons[name] = call.arguments["reason"]
        last = script.steps[-1]
        assert isinstance(last, Said)
        assert last.side == "agent", "nobody says goodbye"
    assert reasons == {
        "human": "requested",
        "human_instead": "requested",
        "not_understood": "low_confidence",
        "failed_twice": "repeated_failure",
        "not_allowed": "policy",
    }


def test_urgency_is_in_the_voice_alone() -> None:
    for seed in SEEDS:
        urgent, unhurried = (played("front_desk", n, seed) for n in ("urgent", "unhurried"))
        assert (urgent.style, unhurried.style) == ("urgent", "neutral")
        for script, priority in ((urgent, "urgent"), (unhurried, None)):
            (call,) = calls_of(script)
            assert call.arguments.get("priority") == priority
            said = " ".join(s.turn.text for s in script.steps if isinstance(s, Said))
            assert not {"urgent", "priority"} & set(said.lower().replace(".", "").split())


def test_interruptions_take_the_floor_and_asides_do_not() -> None:
    for name, manner in (
        ("barge_in", "turn"),
        ("stopped", "turn"),
        ("backchannel", "backchannel"),
        ("side_talk", "side_talk"),
        ("listening", "backchannel"),
    ):
        script = played("front_desk", name, 1)
        over = [s for s in script.steps if isinstance(s, Said) and s.over is not None]
        assert [step.manner for step in over] == [manner], name
        assert over[0].side == ("agent" if name == "listening" else "user")
        assert over[0].takes_floor == (manner == "turn")
    (heard,) = (s for s in played("front_desk", "cough", 1).steps if isinstance(s, Heard))
    assert heard.over is not None


def test_missing_arguments_are_asked_for_one_by_one() -> None:
    asked = Counter()
    for seed in range(40):
        script = played("front_desk", "asked", seed)
        (call, *_) = calls_of(script)
        turns = [step for step in script.steps if isinstance(step, Said)]
        place = next(i for i, step in enumerate(turns) if step.turn.calls)
        answers = place - 2  # greeting, partial request, then question and answer in turn
        assert answers >= 1
        assert answers % 2 == 1
        assert set(call.needs) < set(call.arguments) or len(call.arguments) == 1
        asked[(answers + 1) // 2] += 1
    assert len(asked) > 1


def test_drawn_calls_have_every_scene_and_end_where_one_ends_them() -> None:
    domain, rng, seen = load_domain("front_desk"), random.Random(0), Counter()
    scenes = load_scenes()
    for _ in range(3000):
        drawn = draw_scenes(domain, 3, rng)
        seen.update(drawn)
        assert not any(scenes[name].ends for name in drawn[:-1])
        assert len(drawn) == 3 or scenes[drawn[-1]].ends
    assert set(seen) == set(scenes)


def test_the_library_needs_no_hand_off_and_no_irreversible_tool() -> None:
    missing = set(load_scenes()) - {name for domain, name in PLAYABLE if domain == "library"}
    assert {"human", "failed_twice", "not_understood", "denied", "urgent"} <= missing
    with pytest.raises(ValueError, match="scene human: library has no tool for it"):
        played("library", "human", 0)


def test_the_same_seed_gives_the_same_script_and_another_another() -> None:
    one, two, other = (played("front_desk", "barge_in", seed) for seed in (1, 1, 2))
    assert one.sha256() == two.sha256()
    assert one.to_json() != other.to_json()


def test_mistakes_in_scenes_are_named() -> None:
    with pytest.raises(ValueError, match="step 'sing': must be one of"):
        Step("sing", ("request",))
    with pytest.raises(ValueError, match="with 'hiccup': must be one of"):
        Step("user", ("request",), "hiccup")
    with pytest.raises(ValueError, match="over 'loud': must be true or soft"):
        Step("user", ("request",), over="loud")
    with pytest.raises(ValueError, match=r"scene odd: tools {'blue'}: must be of"):
        Scene("odd", 1, (), tools="blue read")
    library = load_domain("library")
    quiet = dataclasses.replace(library, talk={k: v for k, v in library.talk.items() if k != "yes"})
    with pytest.raises(ValueError, match="library: talk lacks yes"):
        check_talk(quiet)
