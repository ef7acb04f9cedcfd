"""The baseline's parts: what it understands, what its rules make of that, when it says it."""

import dataclasses
import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from data.dialogue import AGENT, Dialogue
from data.line import Line
from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.scripts.script import Said
from data.suites.suite import load_suites
from data.voices.say import say
from model.frame import FRAME_SIZE
from train.cascade.cascade import Cascade, CascadeConfig
from train.cascade.listener import Listener
from train.cascade.manager import Do, Manager, Say
from train.cascade.parser import Parser, load_parser
from train.cascade.phrasebook import shaped
from train.cascade.values import words_of
from train.conversation import Conversation
from train.scoring.dialogue_loop import caller_of, converse
from train.scoring.dialogue_score import standing as stands
from train.scoring.dialogue_tally import tally
from train.scoring.patience import cues_of, delayed

DOMAIN = load_domain("front_desk")
VOICE = "festival:slt_hts"


@functools.cache
def parser() -> Parser:
    return load_parser("front_desk")


# Values


@pytest.mark.parametrize(
    ("said", "slot", "value"),
    [
        ("order four eight one nine two", "order_id", "48192"),
        ("order 48192", "order_id", "48192"),
        ("it is sixteen four ninety two", "order_id", "16492"),
        ("one sixty four ninety two", "order_id", "16492"),
        ("double four oh one, nine", "order_id", "44019"),
        ("four eight one, well, nine two", "order_id", "48192"),
        ("account 4 8 1 9 2 7", "account_id", "481927"),
        ("on 555-0172", "phone", "5550172"),
        ("on friday at two", "time", "14:00"),
        ("friday, two", "time", "14:00"),
        ("at half past eight", "time", "08:30"),
        ("at 10:30", "time", "10:30"),
        ("ten thirty", "time", "10:30"),
        ("at one thirty in the afternoon", "time", "13:30"),
        ("at twelve o'clock", "time", "12:00"),
        ("at noon", "time", "12:00"),
        ("eight in the morning", "time", "08:00"),
        ("at 2 p.m.", "time", "14:00"),
        ("next week", "day", "next week"),
        ("for the billing team", "to", "billing"),
        ("someone in sales", "department", "sales"),
        ("your return policy", "topic", "returns"),
        ("it is not urgent", "priority", "normal"),
        ("I would like a demo", "time", None),
        ("one message for the team", "time", None),
        ("order four eight one", "order_id", None),
    ],
)  # fmt: skip
def test_values_are_heard_however_they_are_said(said: str, slot: str, value: str | None) -> None:
    assert parser().named(words_of(said), slot) == value


# What is meant


@pytest.mark.parametrize(
    ("said", "tool", "arguments"),
    [
        ("Can you check order 48192 for me?", "order_status", {"order_id": "48192"}),
        ("Where is my order, four double oh, one two?", "order_status", {"order_id": "40012"}),
        ("Book a demo with Anna on Friday at two.", "book_demo",
         {"person": "anna", "day": "friday", "time": "14:00"}),
        ("Move my appointment to tomorrow, 10:30.", "move_appointment",
         {"day": "tomorrow", "time": "10:30"}),
        ("Tell Tom that I called, it's urgent.", "send_message",
         {"to": "tom", "priority": "urgent"}),
        ("How late are you open?", "faq", {"topic": "hours"}),
        ("Put me through to billing, please.", "route_call", {"department": "billing"}),
        ("My name is Kate and my number is 555 0172, please call me back.", "create_lead",
         {"name": "kate", "phone": "5550172"}),
        ("Please cancel account 12 34 56.", "cancel_subscription", {"account_id": "123456"}),
        ("Let me talk to a human.", "handoff", {"reason": "requested"}),
        ("Check order 48192, no, sorry, 48129, for me.", "order_status", {"order_id": "48129"}),
        ("Is Ann... Anna, no wait, Tom free on Monday?", "check_calendar",
         {"person": "tom", "day": "monday"}),
        ("Can you pass a message on to Tump?", "send_message", {"to": "tom"}),
        ("Is Sara free on Monday?", "check_calendar", {"person": "sarah", "day": "monday"}),
    ],
)  # fmt: skip
def test_requests_are_understood(said: str, tool: str, arguments: dict[str, str]) -> None:
    (request,) = parser().understand(said).requests
    assert (request.tool, request.arguments) == (tool, arguments)
    assert not request.missing


def test_the_mistake_and_its_correction_do_not_hide_what_is_meant() -> None:
    """What is compared with training is as if the right value had been said at once."""
    said = "Is Anna, sorry, I mean Tom, no wait, Kate free on Monday?"
    assert parser()._without_mistakes(words_of(said)) == words_of("Is Kate free on Monday?")


def test_what_lacks_something_names_it() -> None:
    (request,) = parser().understand("I'd like a demo with Anna.").requests
    assert (request.tool, request.missing) == ("book_demo", ("day", "time"))
    filled = parser().filled(request, words_of("On Friday at two."))
    assert filled.arguments == {"person": "anna", "day": "friday", "time": "14:00"}
    (request,) = parser().understand("Can you check order 481").requests
    assert (request.missing, request.digits) == (("order_id",), "481")
    assert parser().filled(request, ["9", "2"]).arguments == {"order_id": "48192"}
    assert parser().filled(request, ["4", "8", "1", "9", "2"]).arguments == {"order_id": "48192"}


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("Yes, please.", "yes"),
        ("No.", "no"),
        ("Never mind.", "never_mind"),
        ("Can you check order 48192? Forget it.", "never_mind"),
        ("I already checked order 48192, that one's fine.", "mentions"),
        ("Don't cancel account 123456 yet.", "mentions"),
        ("Can you tell me a joke?", "out_of_domain"),
        ("Great, thank you, bye.", "thanks"),
        ("Purple elephants sing sonorously", ""),
    ],
)
def test_what_is_no_request_is_told(said: str, act: str) -> None:
    understood = parser().understand(said)
    assert understood.act == act
    assert not understood.requests


def test_two_requests_of_one_breath_are_told_apart() -> None:
    said = "Can you check order 48192, and also, put me through to billing, please."
    requests = parser().understand(said).requests
    assert [request.tool for request in requests] == ["order_status", "route_call"]
    one = parser().understand("My name is Kate and my number is 5550172, call me back.").requests
    assert len(one) == 1


def acted(manager: Manager, *said: str) -> list[Do]:
    acts = [act for text in said for act in manager.heard(text)]
    return [act for act in acts if isinstance(act, Do)]


def frozen(suite: str, number: int) -> tuple[Counter[str], Counter[str]]:
    """The calls that stand at an item's end, and those that the rules make of its caller's texts
    when results come at once."""
    dialogue = (
        load_suites("front_desk").suites[suite].dialogue(number, ["silent"], "silent", Line())
    )
    script = json.loads(dialogue.script)
    manager = Manager(DOMAIN, parser(), dialogue.system, script["tools"], number)
    standing: dict[int, str] = {}
    results = {a.number: a.arguments for a in dialogue.actions if a.kind == "result"}
    others: list[str] = []
    steps = load_suites("front_desk").suites[suite].script(number).steps
    for step in steps:
        if not (isinstance(step, Said) and step.side == "user" and step.takes_floor):
            continue
        todo = list(manager.heard(step.turn.text))
        while todo:
            act = todo.pop(0)
            if not isinstance(act, Do):
                continue
            if act.action == "handoff":
                others.append(f"handoff {json.dumps(act.arguments)}")
            elif act.action in ("call", "revise"):
                standing.pop(act.revises, None)
                standing[act.number] = f"{act.tool} {json.dumps(act.arguments, sort_keys=True)}"
            elif act.action == "cancel":
                standing.pop(act.number)
            is_running = any(one.number == act.number and one.is_running for one in manager.made)
            if (
                is_running
                and act.number in results
                and act.arguments.items() <= results[act.number].items()
            ):
                todo += manager.given(act.number, results[act.number])
    wanted = [
        call.removesuffix(" True").removesuffix(" False")
        for call in stands(dialogue.actions).values()
    ]
    return Counter(wanted), Counter([*standing.values(), *others])


@pytest.mark.parametrize(
    ("suite", "items", "least"),
    [("single", 40, 0.8), ("disfluent", 16, 0.7), ("no_call", 20, 0.8), ("confirmation", 12, 0.7)],
)
def test_most_frozen_items_are_understood_when_they_are_read(
    suite: str, items: int, least: float
) -> None:
    right = sum(one == other for one, other in (frozen(suite, n) for n in range(items)))
    assert right / items >= least


def test_only_training_is_in_the_phrasebook() -> None:
    """Of the suites' own phrasings hardly any is known word by word."""
    known = {entry.words for entry in parser().book.entries}
    assert len(known) > 1000
    words = [
        words_of(step.turn.text)
        for number in range(100)
        for step in load_suites("front_desk").suites["single"].script(number).steps
        if isinstance(step, Said) and any(call.kind == "call" for call in step.turn.calls)
    ]
    same = [w for w in words if shaped(w, parser().values.find(w)) in known]
    assert len(same) < 0.1 * len(words)


# Rules


def manager(*tools: str) -> Manager:
    system = "You are Ava, the receptionist of Delta Works."
    return Manager(DOMAIN, parser(), system, tools or (*DOMAIN.tools,), 1)


def test_a_greeting_has_the_names_of_the_role() -> None:
    text = manager().greeting().text
    assert "Ava" in text
    assert "Delta Works" in text


def test_what_needs_a_yes_is_asked_and_confirmed_corrected_or_taken_back() -> None:
    rules = manager()
    asked = "Book a demo with Anna on Friday at two."
    call, question = rules.heard(asked)
    assert isinstance(call, Do)
    assert isinstance(question, Say)
    assert call.action == "call"
    assert question.text.endswith("?")
    assert acted(rules, "Yes, please.") == [Do("confirm", 1)]
    rules = manager()
    wrong, right = acted(rules, asked, "No, sorry, on Monday.")
    assert (right.action, right.number, right.revises) == ("revise", 2, 1)
    assert right.arguments == {**wrong.arguments, "day": "monday"}
    assert acted(rules, "Yes.") == [Do("confirm", 2)]
    rules = manager()
    assert acted(rules, asked, "No.")[1:] == [Do("cancel", 1)]


def test_what_is_missing_is_asked_for() -> None:
    rules = manager()
    (question,) = rules.heard("Where is my order?")
    assert isinstance(question, Say)
    (call,) = acted(rules, "It's 48192.")
    assert call.arguments == {"order_id": "48192"}


def test_a_result_is_told_and_a_failure_twice_leads_to_a_human() -> None:
    rules = manager()
    acted(rules, "Can you check order 48192?")
    (told,) = rules.given(1, {"order_id": "48192", "status": "shipped", "eta": "friday"})
    assert isinstance(told, Say)
    assert "Friday" in told.text
    for number in (2, 3):
        acted(rules, "Can you check order 48192?")
        acts = rules.given(number, {"order_id": "48192", "error": "unavailable"})
    assert acts[0] == Do("handoff", 0, "", {"reason": "repeated_failure"})


def test_a_tool_that_is_not_declared_is_not_called() -> None:
    rules = manager("faq", "handoff")
    assert acted(rules, "Can you check order 48192?") == []
    assert acted(rules, "Yes.") == [Do("handoff", 0, "", {"reason": "requested"})]


def test_who_is_not_understood_twice_gets_a_human() -> None:
    rules = manager()
    assert acted(rules, "Wibble the flobber of gronk") == []
    assert acted(rules, "Zorp quibble and snark today") == [
        Do("handoff", 0, "", {"reason": "low_confidence"})
    ]


def test_whatever_is_heard_has_an_answer() -> None:
    """Texts of training with words left out and others put in, whatever came before."""
    rng = random.Random(3)
    single = load_suites("front_desk").suites["single"]
    texts = [
        step.turn.text
        for number in range(60)
        for step in single.script(number).steps
        if isinstance(step, Said) and step.side == "user"
    ]
    words = " ".join(texts).split() + "no, sorry yes never mind one two 12 4819".split()
    for number in range(60):
        rules = manager()
        for _ in range(6):
            said = [word for word in rng.choice(texts).split() if rng.random() < 0.8]
            said.insert(rng.randrange(len(said) + 1), rng.choice(words))
            for act in rules.heard(" ".join(said)):
                if isinstance(act, Do) and act.action in ("call", "revise"):
                    result = Backend(DOMAIN, number).answer(act.tool, act.arguments).result
                    rules.given(act.number, result)
        assert len({one.number for one in rules.made}) == len(rules.made)


def test_an_utterance_cut_in_two_is_understood_as_one() -> None:
    rules = manager()
    (call,) = acted(rules, "Can you check order 4 8", "1 9 2")
    assert call.arguments == {"order_id": "48192"}


# Sound


def frames(*parts: np.ndarray) -> np.ndarray:
    audio = np.concatenate(parts)
    audio = np.pad(audio, (0, -len(audio) % FRAME_SIZE))
    return audio.reshape(-1, FRAME_SIZE)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * 24_000), np.float32)


@pytest.mark.parametrize(("pause_ms", "turns"), [(500, 2), (800, 1)])
def test_a_turn_is_over_after_a_silence_that_is_long_enough(pause_ms: int, turns: int) -> None:
    one, other = (
        say(text, "flite:rms").audio for text in ("Can you check order", "four eight one nine two")
    )
    listener = Listener(pause_ms, 192)
    sound = frames(silence(1.0), one, silence(0.45), other, silence(1.5))
    heard = [listener.hear(frame) for frame in sound]
    found = [one.turn for one in heard if one.turn is not None]
    assert len(found) == turns
    assert len(found[-1]) / 16_000 > 1.5
    assert max(one.speaking_ms for one in heard) > 500
    assert not any(one.speaking_ms for one in heard[:12])


@functools.cache
def cascade() -> Cascade:
    return Cascade("front_desk", VOICE, clock=lambda: 0.0)


def dialogue(suite: str, number: int) -> Dialogue:
    return load_suites("front_desk").suites[suite].dialogue(number, ["flite:rms"], VOICE, Line())


def conversations(agent: Cascade, items: Sequence[Dialogue]) -> dict[str, Conversation]:
    callers = [dataclasses.replace(caller_of(one), cues=cues_of(one)) for one in items]
    found = converse(agent, callers, 3, Backend(DOMAIN))
    return {caller.name: conversation for caller, conversation in found}


@functools.cache
def talked() -> tuple[tuple[Dialogue, Conversation], ...]:
    items = [dialogue("single", 0), dialogue("confirmation", 0), dialogue("barge_in", 0)]
    found = conversations(cascade(), items)
    return tuple((one, found[one.name]) for one in items)


def test_it_holds_calls_with_real_ears_and_a_real_voice() -> None:
    for one, conversation in talked():
        counted = tally(DOMAIN, delayed(one, conversation.waits), conversation)
        assert counted.calls.exact == counted.calls.wanted > 0, one.name
        assert counted.transcript is not None
        assert counted.transcript.errors <= 0.4 * counted.transcript.words
        assert all(reply.slots.is_whole for reply in counted.replies)
        needed = counted.score.need_s
        assert all(one_s >= 0.5 for one_s in needed), "no call before the silence is long enough"


def test_it_stops_when_it_is_interrupted() -> None:
    one, conversation = talked()[2]
    counted = tally(DOMAIN, delayed(one, conversation.waits), conversation)
    assert counted.stops_s
    assert all(0.2 <= stop_s <= 0.6 for stop_s in counted.stops_s)


def test_what_it_computes_makes_it_later() -> None:
    ticks = itertools.count()
    slow = Cascade("front_desk", VOICE, clock=lambda: 0.39 * next(ticks))  # 0.4 s, whatever it does
    one, at_once = talked()[0]
    conversation = conversations(slow, [one])[one.name]
    (early_s,), (late_s,) = (
        [event.time_s for event in found.events if event.kind == "made"]
        for found in (at_once, conversation)
    )
    assert late_s == pytest.approx(early_s + 0.4, abs=1e-6)
    assert slow.figures()["compute_ms_p50"].value == pytest.approx(390)
    assert conversation.audio[AGENT].any()


def test_a_configuration_that_cannot_be_names_its_field() -> None:
    with pytest.raises(ValueError, match="pause_ms is 0: must be at least 32"):
        CascadeConfig(pause_ms=0)
