"""Conversations in closed loop: an agent that plays the labels is perfect, and each way to be
wrong shows in the figures that are about it."""

import dataclasses
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from label_agent import LabelAgent, Part, part_of, tokenizer_of
from omegaconf import OmegaConf

from data.dialogue import AGENT, USER, Action, Dialogue
from data.line import Line
from data.scripts.backend import Backend, prompts
from data.scripts.domain import load_domain
from data.scripts.script import Ran
from data.suites.suite import Suites, load_suites
from data.voices.utterance import SAMPLE_RATE_HZ
from model.frame import FRAME_S
from model.load_agent import load_agent
from model.tokens import PAD, STYLES, train_tokenizer
from train import dialogue_samples, talk
from train.conversation import Conversation, Event, speech_in, words_of
from train.conversation_picture import CallLife, lives
from train.intervals import Metric
from train.report import Report, markdown
from train.scoring import dialogue_suite, recognizers
from train.scoring.dialogue_figures import conversation_figures
from train.scoring.dialogue_loop import caller_of, converse
from train.scoring.dialogue_suite import DialogueSuite
from train.scoring.dialogue_tally import CallPair, call_pairs, tally
from train.scoring.patience import delayed, waits_of
from train.scoring.reply_slots import SlotWords, slot_words
from train.tool_desk import ToolDesk

CONF = Path(__file__).resolve().parents[1] / "conf"
DOMAIN = load_domain("front_desk")
BACKEND = Backend(DOMAIN)
ITEMS = (
    ("single", 0),
    ("chained", 0),
    ("correction", 4),
    ("confirmation", 0),
    ("barge_in", 0),
    ("backchannel", 0),
    ("handoff", 0),
    ("faults", 0),
    ("silence", 2),
)


@functools.cache
def dialogues() -> tuple[Dialogue, ...]:
    """Items of several suites that nobody hears."""
    suites = load_suites("front_desk").suites
    return tuple(suites[name].dialogue(n, ["silent"], "silent", Line()) for name, n in ITEMS)


@functools.cache
def tokenizer():
    return tokenizer_of(dialogues())


def conversations(change: Callable[[Dialogue, Part], Part], batch: int) -> dict[str, Conversation]:
    parts = [change(dialogue, part_of(dialogue)) for dialogue in dialogues()]
    agent = LabelAgent(parts, tokenizer())
    callers = map(caller_of, dialogues())
    return {one.name: one for _, one in converse(agent, callers, batch, BACKEND)}


def figures(change: Callable[[Dialogue, Part], Part]) -> dict[str, float]:
    found = conversations(change, batch=3)
    tallies = [tally(DOMAIN, dialogue, found[dialogue.name]) for dialogue in dialogues()]
    metrics = conversation_figures("row", tallies)
    return {name.removesuffix("_row"): round(metric.value, 6) for name, metric in metrics.items()}


def as_labelled(dialogue: Dialogue, part: Part) -> Part:
    return part


@functools.cache
def perfect() -> dict[str, float]:
    return figures(as_labelled)


def test_the_labels_agent_has_every_figure_right() -> None:
    shares = "call_name_right arguments_exact calls_right reply_slots_right replies_right answered"
    for name in (*shares.split(), "yielded", "kept", "passed"):
        assert perfect()[name] == 1, name
    for name in ("false_calls", "silent_false_calls", "starts_in_user_speech", "transcript_wer"):
        assert perfect()[name] == 0, name
    assert 0 <= perfect()["call_complete_ms"] <= 80, "it is made in the frame after"
    assert 160 <= perfect()["barge_in_stop_ms"] < 200, "two frames, as the labels have it"


# Ways to be wrong.


def no_calls(dialogue: Dialogue, part: Part) -> Part:
    return part._replace(actions=())


def wrong_arguments(dialogue: Dialogue, part: Part) -> Part:
    """The second call only: nothing of what came back is told otherwise."""
    changed = [
        a._replace(arguments={**a.arguments, "day": "someday"}) if "day" in a.arguments else a
        for a in part.actions
    ]
    return part._replace(actions=tuple(changed))


def late(dialogue: Dialogue, part: Part) -> Part:
    return part._replace(actions=tuple(a._replace(time_s=a.time_s + 0.16) for a in part.actions))


def never_confirmed(dialogue: Dialogue, part: Part) -> Part:
    return part._replace(actions=tuple(a for a in part.actions if a.kind != "confirm"))


def says_nothing_right(dialogue: Dialogue, part: Part) -> Part:
    return part._replace(agent_words=tuple(w._replace(text="mmm") for w in part.agent_words))


def understands_nothing(dialogue: Dialogue, part: Part) -> Part:
    return part._replace(user_words=tuple(w._replace(text="mmm") for w in part.user_words))


def talks_on(dialogue: Dialogue, part: Part) -> Part:
    """For 1.4 s after it was interrupted."""
    pcm = part.pcm.copy()
    for word in dialogue.unsaid[:1]:
        first = round((word.start_s - 0.3) * SAMPLE_RATE_HZ)
        pcm[first : first + round(1.7 * SAMPLE_RATE_HZ)] = 0.2
    return part._replace(pcm=pcm)


def takes_over(dialogue: Dialogue, part: Part) -> Part:
    """For a while in the middle of the caller's first turn."""
    pcm = part.pcm.copy()
    turn = next((s for s in dialogue.spells if s.side == USER and s.manner == "turn"), None)
    if turn is not None and turn.end_s - turn.start_s > 3:
        first = round((turn.start_s + 0.8) * SAMPLE_RATE_HZ)
        pcm[first : first + round(1.2 * SAMPLE_RATE_HZ)] = 0.2
    return part._replace(pcm=pcm)


def calls_in_silence(dialogue: Dialogue, part: Part) -> Part:
    if dialogue.words[USER]:
        return part
    return part._replace(actions=(Action(1.0, "call", 1, "faq", {"topic": "hours"}),))


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        (
            no_calls,
            "call_name_right arguments_exact calls_right passed call_complete_ms false_calls "
            "reply_slots_right replies_right",
        ),
        (
            wrong_arguments,
            "arguments_exact calls_right passed call_complete_ms reply_slots_right replies_right",
        ),
        (late, "call_complete_ms"),
        (never_confirmed, "calls_right passed call_complete_ms reply_slots_right replies_right"),
        (says_nothing_right, "reply_slots_right replies_right"),
        (understands_nothing, "transcript_wer"),
        (talks_on, "yielded passed barge_in_stop_ms"),
        (takes_over, "starts_in_user_speech passed"),
        (calls_in_silence, "false_calls silent_false_calls passed reply_slots_right replies_right"),
    ],
)
def test_what_is_wrong_shows_in_its_own_figures(change, worse: str) -> None:
    found = figures(change)
    differ = {name for name, value in perfect().items() if found.get(name) != value}
    assert differ <= {*worse.split()}
    assert len(differ) >= min(2, len(worse.split()))
    assert worse.split()[0] in differ


def test_calls_are_put_beside_what_was_asked_for() -> None:
    wanted = {
        1.0: 'order_status {"order_id": "1"} False',
        2.0: 'faq {"topic": "a"} False',
        5.0: "send_message {} True",
        6.0: 'faq {"topic": "b"} False',
        7.0: "handoff {}",
    }
    made = {
        1.5: "route_call {} False",
        2.5: 'faq {"topic": "c"} False',
        3.0: 'order_status {"order_id": "1"} False',
        6.5: 'faq {"topic": "b"} True',
    }
    pairs = call_pairs(wanted, made, {time_s: time_s / 10 for time_s in made})
    assert {*pairs} == {
        CallPair("order_status", "order_status", True, 0.3),
        CallPair("faq", "faq", True, 0.65),
        CallPair("faq", "faq", False, 0.25),
        CallPair("send_message", "route_call", False, 0.15),
        CallPair("handoff", None),
    }
    (lost,) = call_pairs({}, {1.0: "faq {} False"}, {1.0: 0.5})
    assert lost == CallPair(None, "faq", False, 0.5)


def test_the_longest_pause_of_each_turn_is_told() -> None:
    dialogue = load_suites("front_desk").suites["pause"].dialogue(0, ["silent"], "silent", Line())
    agent = LabelAgent([part_of(dialogue)], tokenizer_of([dialogue]))
    ((_, conversation),) = converse(agent, [caller_of(dialogue)], 1, BACKEND)
    one = tally(DOMAIN, delayed(dialogue, conversation.waits), conversation)
    turns = [s for s in dialogue.spells if s.side == USER and s.manner == "turn"]
    assert len(one.pauses_s) == len(turns) > 1
    assert 0.4 <= max(one.pauses_s) < 2.1
    assert min(one.pauses_s) < 0.4
    assert one.as_json()["pairs"][0]["confidence"] == 0.9


def test_conversations_do_not_depend_on_who_else_calls() -> None:
    alone, together = conversations(as_labelled, 1), conversations(as_labelled, 4)
    assert alone.keys() == together.keys() == {dialogue.name for dialogue in dialogues()}
    for name, one in alone.items():
        assert one.words == together[name].words
        assert one.events == together[name].events
        assert np.array_equal(one.audio, together[name].audio)


@pytest.mark.parametrize(("more_s", "waited_s"), [(2.0, 2.0), (60.0, 10.0)])
def test_a_caller_lets_the_agent_finish_but_not_for_ever(more_s: float, waited_s: float) -> None:
    """Who talks on before his last turn is not cut off; what comes after it comes later."""
    dialogue = dialogues()[0]
    part = part_of(dialogue)
    last = [spell for spell in dialogue.spells if spell.side == USER][-1]
    before_s = max(s.end_s for s in dialogue.spells if s.side == AGENT and s.end_s < last.start_s)
    first, end = (round(s * SAMPLE_RATE_HZ) for s in (before_s, last.start_s + more_s))
    pcm = np.pad(part.pcm, (0, max(0, end - len(part.pcm))))
    pcm[first:end] = 0.2
    marked = dialogue.audio.copy()  # it has no sound of its own
    marked[USER, round(last.start_s * SAMPLE_RATE_HZ) :] = 0.1
    caller = caller_of(dataclasses.replace(dialogue, audio=marked))
    agent = LabelAgent([part._replace(pcm=pcm)], tokenizer())
    ((_, conversation),) = converse(agent, [caller], 1, BACKEND)
    (wait,) = conversation.waits
    assert waited_s <= wait.seconds <= waited_s + 0.4
    begins_s = int(np.argmax(conversation.audio[USER] > 0)) / SAMPLE_RATE_HZ
    later = delayed(dialogue, conversation.waits)
    moved = [spell for spell in later.spells if spell.side == USER][-1]
    assert abs(moved.start_s - begins_s) < 1e-3
    assert later.actions == dialogue.actions, "they were before"
    assert later.seconds == pytest.approx(dialogue.seconds + wait.seconds)
    assert [spell for spell in later.spells if spell.end_s < last.start_s] == [
        spell for spell in dialogue.spells if spell.end_s < last.start_s
    ]


def test_only_who_interrupts_does_not_wait() -> None:
    """Who comes in as the agent's last word ends interrupts nobody."""
    for dialogue in dialogues():
        answers = [
            turn
            for turn in dialogue.spells
            if turn.side == USER and turn.manner == "turn"
            and any(s.side == AGENT and s.start_s < turn.start_s for s in dialogue.spells)
        ]  # fmt: skip
        waits = waits_of(dialogue)
        at_once = [turn for turn in answers if int(turn.start_s / FRAME_S) not in waits]
        assert len(at_once) == dialogue.name.startswith("barge_in"), dialogue.name
        assert all(1 <= quiet <= 3 for quiet in waits.values())
        for turn in at_once:
            assert any(turn.start_s < word.start_s for word in dialogue.unsaid)


def test_an_agent_is_given_what_a_server_would_give_it() -> None:
    dialogue = dialogues()[0]
    agent = LabelAgent([part_of(dialogue)], tokenizer())
    ((_, conversation),) = converse(agent, [caller_of(dialogue)], 2, BACKEND)
    ((row, system, tools, _),) = agent.begun
    assert (row, system, tools) == (0, dialogue.system, json.loads(dialogue.tools))
    result = next(action for action in dialogue.actions if action.kind == "result")
    ((_, frame, number, given),) = agent.given
    assert (number, given) == (result.number, result.arguments)
    assert 0 <= frame * 0.08 - result.time_s <= 0.08
    said = [word.text for word in conversation.words[AGENT]]
    assert said == [word.text for word in dialogue.words[AGENT]]
    spoken = conversation.audio[AGENT, : dialogue.audio.shape[1]]
    assert np.array_equal(spoken, part_of(dialogue).pcm)
    assert conversation.seconds > dialogue.seconds + 1.5


# Tools


def event(time_s: float, action: str, number: int, tool: str = "", **arguments: str) -> Event:
    return Event(time_s, "made", number, action, tool, arguments)


LABELS = (
    Action(2.0, "call", 1, "order_status", {"order_id": "12345"}),
    Action(4.0, "result", 1, "order_status", {"order_id": "12345", "eta": "friday"}),
    Action(6.0, "call", 2, "order_status", {"order_id": "55555"}),
)


def test_a_call_of_the_labels_gets_their_result_when_they_have_it() -> None:
    desk = ToolDesk(BACKEND, LABELS)
    desk.made(event(2.2, "call", 1, "order_status", order_id="12345"))
    assert desk.ready(3.9) == []
    assert desk.ready(4.0) == [(1, {"order_id": "12345", "eta": "friday"})]
    assert desk.ready(9.0) == []
    desk.made(event(6.1, "call", 2, "order_status", order_id="55555"))
    assert desk.ready(99.0) == [], "there it has none"


def test_another_call_gets_the_backends_after_a_while() -> None:
    desk = ToolDesk(BACKEND, LABELS)
    desk.made(event(2.0, "call", 1, "order_status", order_id="54321"))
    answer = BACKEND.answer("order_status", {"order_id": "54321"})
    assert desk.ready(2.0 + answer.latency_s - 0.01) == []
    assert desk.ready(2.0 + answer.latency_s) == [(1, answer.result)]


def test_what_is_replaced_or_taken_back_gets_nothing() -> None:
    desk = ToolDesk(BACKEND)
    desk.made(event(1.0, "call", 1, "order_status", order_id="54321"))
    desk.made(event(1.1, "revise", 2, "order_status", order_id="11111"))
    desk.made(event(1.1, "call", 3, "faq", topic="hours"))
    desk.made(event(1.2, "cancel", 3))
    assert [number for number, _ in desk.ready(9.0)] == [2]


def test_what_needs_a_yes_waits_for_it() -> None:
    desk = ToolDesk(BACKEND)
    desk.made(event(1.0, "call", 1, "cancel_subscription", account_id="123456"))
    assert desk.ready(60.0) == []
    desk.made(event(60.0, "confirm", 1))
    assert [number for number, _ in desk.ready(70.0)] == [1]


def test_made_up_results_look_like_those_of_scripts() -> None:
    suite = load_suites("front_desk").suites["single"]
    for number in range(40):
        for step in suite.script(number).steps:
            if isinstance(step, Ran):
                fields = DOMAIN.replies[step.tool].results
                arguments = {k: v for k, v in step.result.items() if k not in fields}
                found = BACKEND.answer(step.tool, arguments).result
                assert {*found} in ({*step.result}, {*arguments, "error"})
                assert {**found, **arguments} == found
                assert found == Backend(DOMAIN).answer(step.tool, arguments).result


def test_what_the_domain_does_not_know_is_not_found() -> None:
    for tool, arguments in (
        ("check_calendar", {"person": "zaphod", "day": "monday"}),
        ("faq", {"topic": "weather"}),
        ("order_status", {}),
        ("order_status", {"order_id": "no digits"}),
        ("bake_bread", {"kind": "rye"}),
    ):
        assert BACKEND.answer(tool, arguments).result == {**arguments, "error": "not_found"}
    ids = [f"{number:05}" for number in range(300)]
    lost = ["error" in BACKEND.answer("order_status", {"order_id": i}).result for i in ids]
    assert 10 < sum(lost) < 60
    other = [Backend(DOMAIN, 1).answer("order_status", {"order_id": i}).result for i in ids]
    assert lost != ["error" in result for result in other]


def test_prompts_have_a_role_and_every_tool() -> None:
    system, tools = prompts("front_desk", 3)
    assert system == prompts("front_desk", 3)[0] != prompts("front_desk", 4)[0]
    assert [tool["name"] for tool in tools] == [*DOMAIN.tools]
    assert {*tools[0]} == {"name", "description", "parameters"}
    with pytest.raises(ValueError, match="domain 'bakery'"):
        prompts("bakery", 0)


# What is said of a result

ORDER = {"order_id": "48819", "status": "shipped", "eta": "today"}


@pytest.mark.parametrize(
    ("said", "right", "words"),
    [
        ("Order four eight eight one nine has shipped, it should be there today.", 8, 8),
        ("order four double eight, nineteen is on its way, you can expect it later today.", 11, 11),
        ("One moment. It is on its way, so it should reach you later today.", 6, 6),
        ("Order four eight eight nine one has shipped, it should be there today.", 7, 8),
        ("Order four eight eight nine has shipped, it should be there today.", 7, 8),
        ("It is delayed, so it should reach you on Monday.", 1, 5),
        ("", 0, 3),
    ],
)
def test_slot_words_are_counted_by_the_phrasing_that_is_closest(
    said: str, right: int, words: int
) -> None:
    assert slot_words(DOMAIN, "order_status", ORDER, said) == SlotWords(right, words)


def test_every_phrasing_of_a_reply_has_all_its_slots_right() -> None:
    rng = random.Random(1)
    for tool, reply in DOMAIN.replies.items():
        arguments = {a: DOMAIN.slots[s].draw(rng) for a, s in DOMAIN.tools[tool].slots.items()}
        slots = {name: slot.format(**arguments) for name, slot in reply.results.items()}
        result = {**arguments, **{name: DOMAIN.slots[s].draw(rng) for name, s in slots.items()}}
        slots = {**DOMAIN.tools[tool].slots, **slots}
        for phrasing in reply.say[::7]:
            said = " ".join(
                part.text or DOMAIN.slots[slots[part.slot]].say(result[part.slot], rng)
                for part in phrasing
            )
            assert slot_words(DOMAIN, tool, result, said).is_whole, said


# Conversations


def test_speech_is_told_from_silence_and_clicks() -> None:
    pcm = np.zeros(5 * SAMPLE_RATE_HZ, np.float32)
    for start_s, end_s in ((0.5, 1.0), (1.3, 2.0), (3.0, 3.02), (4.0, 5.0)):
        pcm[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)] = 0.1
    assert speech_in(pcm) == (pytest.approx((0.5, 2.0)), pytest.approx((4.0, 5.0)))
    assert speech_in(pcm * np.float32(0.01)) == ()


def test_words_are_read_from_their_tokens() -> None:
    spelled = train_tokenizer([], 400)
    pad, style = spelled.id_of(PAD), spelled.id_of(f"<{STYLES[0]}>")
    accented, number = spelled.encode(" né"), [*spelled.encode(" 4"), *spelled.encode("2")]
    tokens = [pad, style, *accented, pad, *number]
    first, last = 2, 2 + len(accented)  # frames; what they bring is there one later
    one, other = words_of(tokens, spelled)
    assert (one.text, other.text) == ("né", "42")
    assert one[1:] == pytest.approx(((first + 1) * 0.08, (last + 1) * 0.08))
    assert other[1:] == pytest.approx(((last + 2) * 0.08, (len(tokens) + 1) * 0.08))


def test_the_life_of_each_call_is_told() -> None:
    events = (
        Event(1.0, "opened", 1, "call", "", {}),
        event(1.2, "call", 1, "faq", topic="hours"),
        Event(2.0, "opened", 2, "revise", "", {}),
        event(2.2, "revise", 2, "faq", topic="address"),
        Event(3.0, "result", 2, "result", "faq", {"topic": "address"}),
        Event(4.0, "opened", 3, "call", "", {}),
    )
    assert lives(events) == [
        CallLife("1: faq topic=hours", 1.0, 1.2, ended_s=2.2),
        CallLife("2 instead of 1: faq topic=address", 2.0, 2.2, 3.0, result="topic=address"),
        CallLife("3 ", 4.0),
    ]


# The suite


def silent_voices(domain: str) -> Suites:
    voices = {"agent": ("silent",), "seen": ("silent",), "gone": ("piper:nobody",)}
    return dataclasses.replace(load_suites(domain), voices=voices)


CONFIG = {
    "domain": "front_desk",
    "suites": ("single", "silence"),
    "rows": {
        "seen": {"voices": "seen", "line": "clean"},
        "gone": {"voices": "gone", "line": "clean"},
    },
    "dialogues": 4,
    "batch": 3,
    "heard_lines": 4,
    "details": None,
}


def test_the_suite_reports_rows_and_names_those_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue_suite, "load_suites", silent_voices)
    monkeypatch.setattr(recognizers, "usable", lambda names: ([*names], []))
    monkeypatch.setattr(recognizers, "transcribe", lambda name, audio: "hello")
    monkeypatch.setattr(dialogue_suite, "say", say_nothing)
    details = tmp_path / "details.jsonl"
    suite = DialogueSuite(**{**CONFIG, "details": str(details)})
    asked = list(suite._dialogues("clean", ["silent"], "silent"))
    assert [dialogue.name for dialogue in asked] == [
        "single-000", "silence-000", "single-001", "silence-001",
    ]  # fmt: skip
    agent = LabelAgent([part_of(dialogue) for dialogue in asked], tokenizer_of(asked))
    outcome = suite.measure(agent, processes=1)
    metrics = outcome.metrics
    assert metrics["passed_seen"] == Metric(1.0, 1.0, 1.0, 4, "share")
    assert metrics["agent_wer_seen"].n == 4
    assert metrics["agent_wer_seen"].value == metrics["teacher_wer_seen"].value > 50
    assert not any(name.endswith("_gone") for name in metrics)
    assert any("row gone is left out" in note for note in outcome.notes)
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert {line["name"] for line in lines} == {dialogue.name for dialogue in asked}
    (pair,) = next(line["pairs"] for line in lines if line["name"] == "single-000")
    assert (pair["is_exact"], pair["confidence"]) == (True, 0.9)
    assert pair["wanted"] == pair["made"]
    text = markdown(Report("dialogue", "test", 1.0, (0, 0, 0), outcome))
    assert "| `call_name_right_seen` | 1 (1 to 1) | >= 0.98 | held |" in text


def say_nothing(text: str, voice: str) -> SimpleNamespace:
    if voice == "piper:nobody":
        raise FileNotFoundError("no such voice")
    return SimpleNamespace(audio=np.zeros(24_000, np.float32))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dialogues", 0, "dialogues is 0"),
        ("batch", 0, "batch is 0"),
        ("heard_lines", -1, "heard_lines is -1"),
        ("suites", ("single", "sing"), r"suites has \['single', 'sing'\]: must be of"),
        ("domain", "bakery", "suites of 'bakery'"),
        ("rows", {"a": {"voices": "seen"}}, r"rows.a has \['voices'\]"),
        ("rows", {"a": {"voices": "all", "line": "clean"}}, "rows.a.voices is 'all'"),
        ("rows", {"a": {"voices": "new", "line": "5db"}}, "rows.a.line is '5db'"),
    ],
)
def test_a_suite_that_cannot_be_run_says_why(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DialogueSuite(**{**CONFIG, field: value})


def test_the_suites_configuration_is_one() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("evaluate", ["suite=dialogue", "suite.dialogues=7", "suite.batch=2"])
    suite = instantiate(cfg.suite, _convert_="object")
    assert (suite.dialogues, suite.batch, [*suite.rows]) == (7, 2, ["seen", "new", "new_engine"])
    assert {*suite.suites} == {*load_suites("front_desk").suites}


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint is '.*': .* has no config.json"):
        load_agent(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint is '.*': .* has no config.json"):
        DialogueSuite(**{**CONFIG, "rows": {}}).check(tmp_path)


# Talking


def test_a_call_leaves_what_was_heard_and_done(tmp_path: Path) -> None:
    dialogue = dialogues()[3]
    caller = np.random.default_rng(0).normal(0, 0.1, dialogue.audio.shape[1]).astype(np.float32)
    agent = LabelAgent([part_of(dialogue)], tokenizer())
    conversation = talk.talk(agent, caller, "front_desk", "a call", tail_s=0.8, seed=2)
    ((_, system, tools, _),) = agent.begun
    assert (system, tools) == prompts("front_desk", 2)
    talk.leave(conversation, tmp_path)
    stereo, rate_hz = soundfile.read(tmp_path / "conversation.wav")
    assert rate_hz == SAMPLE_RATE_HZ
    assert 0.7 < len(stereo) / rate_hz - dialogue.seconds < 0.9
    assert np.abs(stereo[: len(caller), 0] - caller.clip(-1, 1)).max() < 1e-3
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["time_s"] for e in events] == sorted(e["time_s"] for e in events)
    assert {e["kind"] for e in events} == {
        "agent_word", "user_word", "floor", "opened", "made", "result",
    }  # fmt: skip
    said = [e["text"] for e in events if e["kind"] == "user_word"]
    assert said == [word.text for word in dialogue.words[USER]]
    assert (tmp_path / "timeline.png").stat().st_size > 10_000
    shown = talk.table(conversation)
    assert " ".join(said[:3]) in shown
    for what in ("made", "result", "confirm 1"):
        assert what in shown


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (44_100, 2), (24_000, 1)])
def test_recordings_of_any_rate_are_read(tmp_path: Path, rate_hz: int, channels: int) -> None:
    times = np.arange(rate_hz) / rate_hz
    tone = np.sin(2 * np.pi * 440 * times).astype(np.float32) * 0.5
    soundfile.write(tmp_path / "call.wav", np.stack([tone] * channels, 1), rate_hz)
    audio = talk.read_call(tmp_path / "call.wav")
    assert (audio.dtype, audio.shape) == (np.float32, (SAMPLE_RATE_HZ,))
    assert abs(np.abs(audio[1000:-1000]).max() - 0.5) < 0.01


def test_what_cannot_be_talked_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 8_000)
    for name, message in (
        ("gone.wav", "input is .*gone.wav': there is no such file"),
        ("text.wav", "input is .*text.wav': no sound file"),
        ("empty.wav", "input is .*empty.wav': holds no sound"),
    ):
        with pytest.raises(ValueError, match=message):
            talk.read_call(tmp_path / name)
    right = {"checkpoint": "a", "input": "b", "tools": "front_desk", "out": str(tmp_path / "out")}
    talk._check(OmegaConf.create({**right, "tail_s": 1}))
    for field, value, message in (
        ("checkpoint", None, "checkpoint is missing"),
        ("input", None, "input is missing"),
        ("tools", "bakery", "tools is 'bakery': .*front_desk"),
        ("out", str(tmp_path / "text.wav"), "out is .*: cannot write there"),
        ("tail_s", -1, "tail_s is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            talk._check(OmegaConf.create({"tail_s": 1, **right, field: value}))


def test_training_leaves_samples_at_each_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue_samples, "load_suites", silent_voices)
    callback = dialogue_samples.DialogueSamples(str(tmp_path), suites=("single",))
    agent = LabelAgent([part_of(dialogues()[0])], tokenizer())
    module: Any = SimpleNamespace(agent=lambda: agent)
    trainer: Any = SimpleNamespace(sanity_checking=True, global_step=40)
    callback.on_validation_end(trainer, module)
    assert not [*tmp_path.iterdir()]
    trainer.sanity_checking = False
    callback.on_validation_end(trainer, module)
    left = tmp_path / "samples" / "single-000-0000040"
    assert {path.name for path in left.iterdir()} == {
        "conversation.wav", "events.jsonl", "timeline.png",
    }  # fmt: skip
    with pytest.raises(ValueError, match="front_desk has none such"):
        dialogue_samples.DialogueSamples(str(tmp_path), suites=("singles",))
