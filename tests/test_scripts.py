"""Scripts: phrasings, spoken values, requests and what becomes of them when people speak."""

import dataclasses
import itertools
import random
import re

import numpy as np
import pytest

from data.scripts import spoken
from data.scripts.disfluency import (
    correction,
    other_value,
    with_correction,
    with_filler,
    with_pause,
    with_restart,
)
from data.scripts.domain import Domain, load_domain, of_split, phrasing_split, with_added
from data.scripts.grammar import Part, phrasings, skeleton
from data.scripts.slots import Slot
from data.scripts.spoken_turn import speak
from data.scripts.turn import Asked, Call, Turn, joined, last_words, request
from data.sentences import Split

DOMAINS = ("front_desk", "library")
REQUESTS = [(name, tool) for name in DOMAINS for tool in load_domain(name).tools]
ASKINGS = [
    (name, kind, tool)
    for name in DOMAINS
    for kind in ("requests", "partials", "mentions")
    for tool in getattr(load_domain(name), kind)
]


def requests(name: str, tool: str, split: Split, count: int, kind: str = "requests") -> list[Asked]:
    rng, domain = random.Random(f"{name} {tool} {split}"), load_domain(name)
    found = getattr(domain, kind)[tool]
    return [request(domain, domain.tools[tool], found, split, rng) for _ in range(count)]


def called(asked: Asked, number: int = 1) -> Turn:
    """The turn with its call."""
    needs = last_words(asked.turn, asked.tool, list(asked.arguments))
    call = Call("call", number, asked.tool.name, asked.arguments, needs, max(needs.values()))
    return dataclasses.replace(asked.turn, calls=(call,))


# Phrasings


def test_a_template_gives_each_of_its_phrasings() -> None:
    found = [skeleton(phrasing) for phrasing in phrasings("(can|could you) [please] book {day}?")]
    assert found == [
        "can please book {day} ?",
        "can book {day} ?",
        "could you please book {day} ?",
        "could you book {day} ?",
    ]
    (only,) = phrasings("are you {topic=hours|open late}")
    assert only == (Part("are"), Part("you"), Part("open late", "topic", "hours"))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("(can you", r"'\(' is not closed by '\)'"),
        ("can you)", r"'\)' closes nothing"),
        ("[a)", r"'\[' is not closed by '\]'"),
        ("on {day", "must be {slot}"),
        ("on {day=monday}", "must be {slot}"),
    ],
)
def test_brackets_that_do_not_match_are_named(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(phrasings(template))


@pytest.mark.parametrize("tool", load_domain("front_desk").tools)
def test_the_front_desk_has_forty_phrasings_a_tool_and_ten_for_tests(tool: str) -> None:
    found = load_domain("front_desk").requests[tool]
    by_split = {
        split: {skeleton(p) for p in found if phrasing_split(p) == split}
        for split in ("train", "test")
    }
    assert len(by_split["train"]) >= 40
    assert len(by_split["test"]) >= 10


# Values in words

_ONES = {word: index for index, word in enumerate(spoken._ONES)}
_TENS = {word: 10 * index for index, word in enumerate(spoken._TENS, 2)}


def heard_digits(said: str) -> str:
    """What somebody would write down, word by word."""
    found, repeat, tens = "", 1, False
    for word in said.replace(",", "").split():
        if word in ("double", "triple"):
            repeat = {"double": 2, "triple": 3}[word]
        elif word in _TENS:
            found, tens = found + str(_TENS[word]), True
        elif tens and 0 < _ONES.get(word, 0) < 10:
            found, tens = found[:-1] + str(_ONES[word]), False
        else:
            found, repeat, tens = found + str({"oh": 0, **_ONES}[word]) * repeat, 1, False
    return found


def test_spoken_digits_are_heard_as_they_were() -> None:
    rng = random.Random(0)
    ways = set()
    for _ in range(2000):
        value = "".join(rng.choice("0123456789") for _ in range(rng.randint(4, 7)))
        said = spoken.digits(value, rng)
        assert heard_digits(said) == value, said
        ways |= {word for word in ("double", "triple", "oh", "zero", "forty", ",") if word in said}
    assert ways == {"double", "triple", "oh", "zero", "forty", ","}


def test_spoken_times_are_office_hours() -> None:
    rng = random.Random(0)
    for half_hours in range(16, 38):
        value = f"{half_hours // 2:02}:{'30' if half_hours % 2 else '00'}"
        for _ in range(20):
            said = spoken.clock(value, rng).replace("noon", "twelve")
            hour = next(_ONES[word] for word in said.split() if word in _ONES)
            hour += 12 * (hour < 7)
            half = "30" if "half past" in said or "thirty" in said else "00"
            assert f"{hour:02}:{half}" == value, said
            if "morning" in said or "afternoon" in said:
                assert ("morning" in said) == (hour < 12)


@pytest.mark.parametrize("value", ["14:15", "25:00", "2:00", "noon"])
def test_a_time_off_the_half_hour_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="must be HH:00 or HH:30"):
        spoken.clock(value, random.Random(0))


# Requests


@pytest.mark.parametrize(("name", "tool"), REQUESTS)
def test_a_request_names_every_argument_that_its_call_has(name: str, tool: str) -> None:
    for asked in requests(name, tool, "train", 50):
        assert set(asked.tool.required) <= set(asked.arguments)
        assert asked.missing == ()
        needs = last_words(asked.turn, asked.tool, list(asked.arguments))
        assert set(needs) == set(asked.arguments)
        for argument, value in asked.arguments.items():
            slot = asked.tool.slots[argument]
            said = [index for index, p in enumerate(asked.turn.pieces) if p.slot == slot]
            assert needs[argument] == said[-1]
            schema = asked.tool.parameters["properties"][argument]
            assert re.fullmatch(schema.get("pattern", ".+"), value)
            assert value in schema.get("enum", [value])
        assert asked.turn.text[0].isupper()
        assert not re.search(r" [.,?!]", asked.turn.text)
        assert not re.search(r"\d", asked.turn.text), "digits are spoken as words"


@pytest.mark.parametrize(
    ("name", "tool"), [(name, tool) for name, kind, tool in ASKINGS if kind == "partials"]
)
def test_a_partial_request_says_what_it_leaves_out(name: str, tool: str) -> None:
    left_out = set()
    for asked in requests(name, tool, "train", 50, "partials"):
        named = {piece.slot for piece in asked.turn.pieces}
        assert asked.missing
        assert all(asked.tool.slots[argument] not in named for argument in asked.missing)
        assert set(asked.tool.required) <= set(asked.arguments), "what it is to be, is known"
        left_out.update(asked.missing)
    assert left_out <= set(load_domain(name).tools[tool].required)


@pytest.mark.parametrize(("name", "kind", "tool"), ASKINGS)
def test_training_asks_nothing_that_the_tests_ask(name: str, kind: str, tool: str) -> None:
    splits: tuple[Split, Split] = ("train", "test")
    train, test = (
        {asked.turn.text for asked in requests(name, tool, s, 300, kind)} for s in splits
    )
    assert train
    assert test
    assert train.isdisjoint(test)


@pytest.mark.parametrize("tool", ["order_status", "create_lead", "cancel_subscription"])
def test_training_names_no_digits_that_the_tests_name(tool: str) -> None:
    def named(split: Split) -> set[str]:
        rng, domain = random.Random(split), load_domain("front_desk")
        turns = [called(asked) for asked in requests("front_desk", tool, split, 400)]
        turns = [with_correction(domain, turn, split, rng) for turn in turns]
        return {str(sorted(call.arguments.items())) for turn in turns for call in turn.calls}

    assert named("train").isdisjoint(named("test"))


def test_added_phrasings_are_for_training_alone() -> None:
    """What tests may say is what they could say before: the suites hash to what was frozen."""
    plain = phrasings("could you find {order_id}?"), phrasings("where did {order_id} go to?")
    before = {"order_status": tuple(itertools.chain(*plain))}
    added = [
        f"{start} {{order_id}} now{end}?" for start in ("is", "was", "has") for end in ("", " then")
    ]
    more = with_added(before, {"order_status": added})
    assert of_split(more["order_status"], "test") == of_split(before["order_status"], "test")
    new = {*of_split(more["order_status"], "train")} - {*of_split(before["order_status"], "train")}
    assert 0 < len(new) < len(added)
    with pytest.raises(ValueError, match="no_tool"):
        with_added(before, {"no_tool": ()})


def test_the_same_arguments_are_asked_for_again_in_other_words() -> None:
    domain, rng = load_domain("front_desk"), random.Random(3)
    for asked in requests("front_desk", "book_demo", "train", 20):
        found = domain.requests["book_demo"]
        again = request(domain, asked.tool, found, "train", rng, asked.arguments)
        assert again.arguments == asked.arguments
        assert set(last_words(again.turn, again.tool, list(again.arguments))) == set(
            asked.arguments
        )


def test_a_pair_of_words_that_nobody_says_loses_its_first() -> None:
    found = requests("front_desk", "check_calendar", "train", 400)
    said = " ".join(asked.turn.text for asked in found)
    assert "tomorrow" in said
    assert "on Monday" in said
    assert "on tomorrow" not in said


def test_two_turns_in_one_breath_keep_their_calls_at_their_words() -> None:
    first = called(requests("front_desk", "order_status", "train", 1)[0])
    second = called(requests("front_desk", "book_demo", "train", 1)[0], number=2)
    both = joined(first, second)
    assert [call.number for call in both.calls] == [1, 2]
    for whole, alone in zip(both.calls, (first, second), strict=True):
        (call,) = alone.calls
        offset = len(both.pieces) - len(second.pieces) if whole.number == 2 else 0
        assert whole.after == call.after + offset
        assert whole.needs == {name: word + offset for name, word in call.needs.items()}
    assert not re.search(r"[.?!] [a-z]", both.text), "no end in its middle"


# Disfluency and correction


@pytest.mark.parametrize("tool", load_domain("front_desk").tools)
@pytest.mark.parametrize("kind", ["filler", "restart", "pause"])
def test_disfluency_keeps_the_words_and_the_right_moment(kind: str, tool: str) -> None:
    rng, domain = random.Random(0), load_domain("front_desk")
    change = {
        "filler": lambda turn: with_filler(domain, turn, rng),
        "restart": lambda turn: with_restart(turn, rng),
        "pause": lambda turn: with_pause(turn, rng),
    }[kind]
    changed = 0
    for asked in requests("front_desk", tool, "train", 100):
        turn = called(asked)
        other = change(turn)
        assert len(other.pieces) >= len(turn.pieces)
        changed += other != turn
        before, after = turn.calls[0], other.calls[0]
        assert after.arguments == before.arguments
        for argument, word in before.needs.items():
            said, moved = turn.pieces[word], other.pieces[after.needs[argument]]
            assert (moved.text.rstrip(","), moved.slot) == (said.text.rstrip(",?."), said.slot) or (
                moved == said
            )
        slots = [piece.text.rstrip(",.?") for piece in other.pieces if piece.slot]
        assert slots == [piece.text.rstrip(",.?") for piece in turn.pieces if piece.slot]
        pauses = [piece.pause_s for piece in other.pieces if piece.pause_s]
        assert len(pauses) == (kind == "pause" and len(turn.pieces) > 1)
        assert all(0.4 <= pause_s <= 2.0 for pause_s in pauses)
        assert other.pieces[-1].pause_s == 0
    assert changed > 50


@pytest.mark.parametrize(("name", "tool"), REQUESTS)
def test_a_correction_is_a_call_and_its_revision(name: str, tool: str) -> None:
    domain, rng, revised = load_domain(name), random.Random(0), 0
    for asked in requests(name, tool, "train", 60):
        turn = called(asked, number=3)
        other = with_correction(domain, turn, "train", rng)
        if other == turn:
            assert not any(piece.is_drawn for piece in turn.pieces), "there was another value"
            continue
        right = other.calls[-1]
        assert right.arguments == turn.calls[0].arguments
        assert other.pieces[right.after] == turn.pieces[turn.calls[0].after]
        assert len(other.pieces) > len(turn.pieces)
        if len(other.calls) == 2:
            revised += 1
            wrong = other.calls[0]
            assert (wrong.kind, wrong.number, wrong.revises) == ("call", 3, 0)
            assert (right.kind, right.number, right.revises) == ("revise", 4, 3)
            assert wrong.after < right.after
            differing = [a for a in right.arguments if wrong.arguments[a] != right.arguments[a]]
            assert list(right.needs) == differing
            assert wrong.needs[differing[0]] == wrong.after == max(wrong.needs.values())
        else:
            assert (right.kind, right.revises) == ("call", 0)
    assert revised or tool in ("faq", "handoff")


def test_a_correction_of_what_is_not_last_revises_nothing() -> None:
    domain, found = load_domain("front_desk"), set()
    for asked in requests("front_desk", "book_demo", "train", 60):
        turn = called(asked)
        other = with_correction(domain, turn, "train", random.Random(turn.text))
        found.add(len(other.calls))
    assert found == {1, 2}


def test_a_correction_may_be_a_turn_of_its_own() -> None:
    domain, rng = load_domain("front_desk"), random.Random(0)
    for asked in requests("front_desk", "check_calendar", "train", 20):
        (call,) = called(asked).calls
        right = other_value(domain, asked.tool, call.arguments, "day", "train", rng)
        assert right is not None
        turn = correction(domain, call, right, "day", 2, rng)
        (revision,) = turn.calls
        assert (revision.kind, revision.revises, revision.arguments) == ("revise", 1, right)
        assert revision.needs == {"day": len(turn.pieces) - 1}
        assert [a for a in right if right[a] != call.arguments[a]] == ["day"]


# Spoken


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A phrase cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("voice", ["flite:rms", "festival:slt_hts"])
@pytest.mark.parametrize("style", ["neutral", "hesitant"])
def test_a_call_is_right_when_its_last_word_has_been_said(cache, voice: str, style: str) -> None:
    domain, rng, fillers = load_domain("front_desk"), random.Random(1), 0
    for asked in requests("front_desk", "order_status", "train", 4):
        turn = with_correction(domain, called(asked), "train", rng)
        turn = with_restart(with_filler(domain, turn, rng), rng)
        spoken_turn = speak(turn, voice, style)
        words = [spoken_turn.utterance.words[number] for number in spoken_turn.words]
        assert [word.text for word in words] == [piece.text for piece in turn.pieces]
        fillers += len(spoken_turn.utterance.words) - len(words)
        first, revision = (spoken_turn.needed_s(call) for call in turn.calls)
        assert first == words[turn.calls[0].after].end_s
        assert 0.5 < first < revision - 1 < len(spoken_turn.utterance.audio) / 24_000
        before, after = np.split(spoken_turn.utterance.audio, [int(24_000 * revision)])
        assert np.abs(before[-2400:]).max() > 0.005, "the word is still heard just before it ends"
        assert len(after) > 0
    assert (fillers > 0) == (style == "hesitant")


@pytest.mark.parametrize("voice", ["flite:rms", "silent"])
def test_a_pause_is_silence_and_moves_what_comes_after_it(cache, voice: str) -> None:
    turn = called(requests("front_desk", "order_status", "train", 1)[0])
    place = turn.calls[0].after - 1
    piece = turn.pieces[place]
    with_comma = piece._replace(text=piece.text.rstrip(",") + ",")
    pieces = [*turn.pieces[:place], with_comma, *turn.pieces[place + 1 :]]
    plain = speak(dataclasses.replace(turn, pieces=tuple(pieces)), voice)
    pieces[place] = with_comma._replace(pause_s=1.5)
    paused = speak(dataclasses.replace(turn, pieces=tuple(pieces)), voice)
    call = turn.calls[0]
    assert paused.said_s(place) == pytest.approx(plain.said_s(place), abs=0.01)
    assert paused.needed_s(call) == pytest.approx(plain.needed_s(call) + 1.5, abs=1e-6)
    assert len(paused.utterance.audio) - len(plain.utterance.audio) == 36_000
    middle = int((paused.utterance.words[paused.words[place + 1]].start_s - 0.75) * 24_000)
    assert np.abs(paused.utterance.audio[middle - 15_000 : middle + 15_000]).max() == 0


def test_a_voice_played_faster_says_its_words_earlier(cache) -> None:
    turn = called(requests("front_desk", "order_status", "train", 1)[0])
    plain, fast = speak(turn, "flite:rms"), speak(turn, "flite:rms", factor=1.25)
    call = turn.calls[0]
    assert fast.needed_s(call) == pytest.approx(plain.needed_s(call) / 1.25)
    assert len(fast.utterance.audio) == pytest.approx(len(plain.utterance.audio) / 1.25, abs=2)


# Domains with mistakes


def changed(**fields) -> Domain:
    return dataclasses.replace(load_domain("library"), **fields)


def test_mistakes_in_a_domain_are_named() -> None:
    library = load_domain("library")
    with pytest.raises(ValueError, match="domain 'bakery': must be one of"):
        load_domain("bakery")
    with pytest.raises(ValueError, match=r"tools and requests differ in \['faq'\]"):
        changed(requests={k: v for k, v in library.requests.items() if k != "faq"})
    with pytest.raises(ValueError, match=r"tool faq has unknown slots {'topic'}"):
        changed(slots={k: v for k, v in library.slots.items() if k != "topic"})
    with pytest.raises(ValueError, match=r"tools and replies differ in \['faq'\]"):
        changed(replies={k: v for k, v in library.replies.items() if k != "faq"})
    with pytest.raises(ValueError, match=r"talk wait names \['card'\]: must be of the role's"):
        changed(talk={**library.talk, "wait": tuple(phrasings("one moment, {card}"))})
    wrong_reply = dataclasses.replace(library.replies["faq"], say=tuple(phrasings("{card}")))
    with pytest.raises(ValueError, match=r"a reply of faq names \['card'\], must be of"):
        changed(replies={**library.replies, "faq": wrong_reply})
    no_slot = dataclasses.replace(library.replies["faq"], results={"answer": "word_{topic}"})
    with pytest.raises(ValueError, match="result answer of faq has no slot 'word_hours'"):
        changed(replies={**library.replies, "faq": no_slot})
    with pytest.raises(ValueError, match=r"ask lacks \['card'\]"):
        changed(ask={k: v for k, v in library.ask.items() if k != "card"})
    with pytest.raises(ValueError, match="partials of find_dvd, which is no tool"):
        changed(partials={"find_dvd": library.partials["find_book"]})
    with pytest.raises(ValueError, match="a partial of find_book lacks nothing"):
        changed(partials={"find_book": library.requests["find_book"]})
    for template, says in (
        ("(a|b|c|d|e|f|g|h) book", r"find_book lacks \['title'\]"),
        ("(a|b|c|d|e|f|g|h) {card} {title}", "find_book has no slot 'card'"),
        ("(a|b|c|d|e|f|g|h) {title=the bible|the bible}", "slot title has no value 'the bible'"),
        ("the book {title}", "too few phrasings"),
    ):
        wrong = {**library.requests, "find_book": tuple(phrasings(template))}
        with pytest.raises(ValueError, match=says):
            changed(requests=wrong)
    with pytest.raises(ValueError, match=r"slot card: has .*must have values, digits or times"):
        Slot("card", digits=6, times=("08:00", "09:00"))
    with pytest.raises(ValueError, match="slot title: 'dune' must be one of"):
        library.slots["title"].say("dune", random.Random(0))
