"""Scripts: phrasings, spoken values, requests and what becomes of them when people speak."""

import dataclasses
import random
import re

import numpy as np
import pytest

from data.scripts import spoken
from data.scripts.domain import Domain, load_domain, phrasing_split
from data.scripts.grammar import Part, phrasings, skeleton
from data.scripts.spoken_turn import speak
from data.scripts.turn import Turn, request, with_correction, with_filler, with_restart
from data.sentences import Split

DOMAINS = ("front_desk", "library")
REQUESTS = [(name, tool) for name in DOMAINS for tool in load_domain(name).tools]


def requests(name: str, tool: str, split: Split, count: int) -> list[Turn]:
    rng = random.Random(f"{name} {tool} {split}")
    return [request(load_domain(name), tool, split, rng) for _ in range(count)]


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
def test_the_front_desk_has_forty_phrasings_a_tool(tool: str) -> None:
    found = load_domain("front_desk").requests[tool]
    assert len({skeleton(phrasing) for phrasing in found}) >= 40


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
def test_a_request_names_its_arguments_by_the_word_that_makes_the_call_right(
    name: str, tool: str
) -> None:
    declared = load_domain(name).tools[tool]
    for turn in requests(name, tool, "train", 50):
        (call,) = turn.calls
        assert set(declared.parameters["required"]) <= set(call.arguments)
        said = [index for index, piece in enumerate(turn.pieces) if piece.slot]
        assert call.after == said[-1]
        for argument, value in call.arguments.items():
            schema = declared.parameters["properties"][argument]
            assert re.fullmatch(schema.get("pattern", ".+"), value)
            assert value in schema.get("enum", [value])
        assert turn.text[0].isupper()
        assert not re.search(r" [.,?!]", turn.text)


@pytest.mark.parametrize(("name", "tool"), REQUESTS)
def test_training_asks_nothing_that_the_tests_ask(name: str, tool: str) -> None:
    domain = load_domain(name)
    by_split = {
        split: {skeleton(p) for p in domain.requests[tool] if phrasing_split(p) == split}
        for split in ("train", "test")
    }
    assert by_split["train"].isdisjoint(by_split["test"])
    splits: tuple[Split, Split] = ("train", "test")
    train, test = ({turn.text for turn in requests(name, tool, s, 300)} for s in splits)
    assert train.isdisjoint(test)


@pytest.mark.parametrize("tool", ["order_status", "create_lead", "cancel_subscription"])
def test_training_names_no_digits_that_the_tests_name(tool: str) -> None:
    def named(split: Split) -> set[str]:
        rng, domain = random.Random(split), load_domain("front_desk")
        turns = requests("front_desk", tool, split, 400)
        turns = [with_correction(domain, turn, split, rng) for turn in turns]
        return {str(sorted(call.arguments.items())) for turn in turns for call in turn.calls}

    assert named("train").isdisjoint(named("test"))


def test_a_pair_of_words_that_nobody_says_loses_its_first() -> None:
    said = " ".join(turn.text for turn in requests("front_desk", "check_calendar", "train", 400))
    assert "tomorrow" in said
    assert "on Monday" in said
    assert "on tomorrow" not in said


# Disfluency and correction


@pytest.mark.parametrize("tool", load_domain("front_desk").tools)
@pytest.mark.parametrize("change", [with_filler, with_restart])
def test_disfluency_keeps_the_words_and_the_right_moment(change, tool: str) -> None:
    rng = random.Random(0)
    changed = 0
    for turn in requests("front_desk", tool, "train", 100):
        other = change(turn, rng)
        assert len(other.pieces) >= len(turn.pieces)
        changed += other.text != turn.text
        before, after = turn.calls[0], other.calls[0]
        assert after.arguments == before.arguments
        assert other.pieces[after.after] == turn.pieces[before.after]
        slots = [piece.text for piece in other.pieces if piece.slot]
        assert slots == [piece.text for piece in turn.pieces if piece.slot]
    assert changed > 50


@pytest.mark.parametrize(("name", "tool"), REQUESTS)
def test_a_correction_is_a_call_and_its_revision(name: str, tool: str) -> None:
    domain, rng = load_domain(name), random.Random(0)
    for turn in requests(name, tool, "train", 60):
        other = with_correction(domain, turn, "train", rng)
        if other == turn:
            assert tool in ("faq", "handoff", "send_message"), "there was another value to say"
            continue
        right = other.calls[-1]
        assert right.arguments == turn.calls[0].arguments
        assert other.pieces[right.after] == turn.pieces[turn.calls[0].after]
        assert len(other.pieces) > len(turn.pieces)
        if len(other.calls) == 2:
            wrong = other.calls[0]
            assert (wrong.revises, right.revises) == (None, 0)
            assert wrong.after < right.after
            differing = [a for a in right.arguments if wrong.arguments[a] != right.arguments[a]]
            assert len(differing) == 1
            assert other.pieces[wrong.after].slot == domain.tools[tool].slots[differing[0]]
        else:
            assert right.revises is None


def test_a_correction_of_what_is_not_last_revises_nothing() -> None:
    domain, found = load_domain("front_desk"), set()
    for turn in requests("front_desk", "book_demo", "train", 60):
        other = with_correction(domain, turn, "train", random.Random(turn.text))
        found.add(len(other.calls))
    assert found == {1, 2}


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
    for turn in requests("front_desk", "order_status", "train", 4):
        asked = with_restart(with_filler(with_correction(domain, turn, "train", rng), rng), rng)
        spoken_turn = speak(asked, voice, style)
        words = [spoken_turn.utterance.words[number] for number in spoken_turn.words]
        assert [word.text for word in words] == [piece.text for piece in asked.pieces]
        fillers += len(spoken_turn.utterance.words) - len(words)
        first, revision = (spoken_turn.needed_s(call) for call in asked.calls)
        assert first == words[asked.calls[0].after].end_s
        assert 0.5 < first < revision - 1 < len(spoken_turn.utterance.audio) / 24_000
        before, after = np.split(spoken_turn.utterance.audio, [int(24_000 * revision)])
        assert np.abs(before[-2400:]).max() > 0.005, "the word is still heard just before it ends"
        assert len(after) > 0
    assert (fillers > 0) == (style == "hesitant")


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
    with pytest.raises(ValueError, match=r"talk lacks \['wait'\]"):
        changed(talk={k: v for k, v in library.talk.items() if k != "wait"})
    with pytest.raises(ValueError, match="talk must name no slots"):
        changed(talk={**library.talk, "wait": tuple(phrasings("one moment, {card}"))})
    wrong_reply = dataclasses.replace(library.replies["faq"], say=tuple(phrasings("{card}")))
    with pytest.raises(ValueError, match=r"a reply of faq names \['card'\], must be of"):
        changed(replies={**library.replies, "faq": wrong_reply})
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
        dataclasses.replace(library.slots["card"], times=("08:00", "09:00"))
    with pytest.raises(ValueError, match="slot title: 'dune' must be one of"):
        library.slots["title"].say("dune", random.Random(0))
