"""Whole conversations: composed from a domain, spoken by two voices, with calls and results."""

import dataclasses
import random

import numpy as np
import pytest

from data.dialogue import AGENT, USER, Dialogue
from data.perform import perform
from data.scripts.domain import load_domain
from data.scripts.script import Script, compose
from data.sentences import Split

SEEDS = range(8)


def script(domain: str, seed: int, split: Split = "train") -> Script:
    return compose(load_domain(domain), split, 2, random.Random(seed))


def performed(domain: str, seed: int) -> Dialogue:
    rng = random.Random(seed)
    return perform(script(domain, seed), "flite:slt", "flite:rms", "neutral", "test", rng)


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory):
    """(script, dialogue) of several seeds and both domains, from a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield [
            (script(domain, seed), performed(domain, seed))
            for domain in ("front_desk", "library")
            for seed in SEEDS
        ]


@pytest.mark.parametrize("domain", ["front_desk", "library"])
def test_conversations_use_every_tool_and_name_in_replies_what_was_asked(domain: str) -> None:
    exchanges = [e for seed in range(150) for e in script(domain, seed).exchanges]
    assert {e.request.calls[-1].tool for e in exchanges} == set(load_domain(domain).tools)
    for exchange in exchanges:
        right = exchange.request.calls[-1]
        assert exchange.result.items() >= right.arguments.items()
        assert (exchange.confirm is None) == (exchange.confirmed is None)
        assert "{" not in exchange.reply.text
        assert exchange.reply.text[-1] in ".,?!"
    confirmed = {e.request.calls[-1].tool for e in exchanges if e.confirm}
    effects = {load_domain(domain).tools[tool].effect for tool in confirmed}
    assert confirmed
    assert effects <= {"write", "irreversible"}, "what only reads needs no confirmation"


def test_calls_come_with_their_last_word_and_results_after_them(dialogues) -> None:
    kinds = set()
    for played, dialogue in dialogues:
        calls = [action for action in dialogue.actions if action.kind != "result"]
        planned = [call for exchange in played.exchanges for call in exchange.request.calls]
        assert [action.number for action in calls] == list(range(1, len(planned) + 1))
        assert [dict(a.arguments) for a in calls] == [dict(call.arguments) for call in planned]
        ends_s = [word.end_s for word in dialogue.words[USER]]
        for action in calls:
            assert min(abs(action.time_s - end_s) for end_s in ends_s) < 1e-6
            assert (action.kind == "revise") == (action.revises is not None)
        for result in (action for action in dialogue.actions if action.kind == "result"):
            answered = calls[result.number - 1]
            assert result.time_s > answered.time_s
            assert result.tool == answered.tool
            assert result.arguments.items() >= answered.arguments.items()
        kinds |= {action.kind for action in dialogue.actions}
    assert kinds == {"call", "revise", "result"}


def test_the_agent_speaks_the_result_that_is_right_and_only_once_it_is_there(dialogues) -> None:
    for played, dialogue in dialogues:
        said = " ".join(word.text for word in dialogue.words[AGENT])
        starts = {}
        for exchange in played.exchanges:
            assert exchange.reply.text in said
            words = exchange.reply.text.split()
            texts = [word.text for word in dialogue.words[AGENT]]
            starts[exchange.reply.text] = [
                dialogue.words[AGENT][i].start_s
                for i in range(len(texts) - len(words) + 1)
                if texts[i : i + len(words)] == words
            ][-1]
        for exchange in played.exchanges:
            (ready_s, *_) = (a.time_s for a in dialogue.actions if a.arguments == exchange.result)
            assert starts[exchange.reply.text] > ready_s


def test_a_call_that_needs_confirmation_runs_after_the_users_yes(dialogues) -> None:
    seen = 0
    for played, dialogue in dialogues:
        for exchange in played.exchanges:
            if exchange.confirmed is None:
                continue
            seen += 1
            result = next(a for a in dialogue.actions if a.arguments == exchange.result)
            call = next(
                a for a in dialogue.actions if a.kind != "result" and a.number == result.number
            )
            between = [
                w.text for w in dialogue.words[USER] if call.time_s < w.start_s < result.time_s
            ]
            assert " ".join(between).endswith(exchange.confirmed.text)
    assert seen >= 5


def test_nobody_is_talked_over_and_the_sound_is_where_the_words_are(dialogues) -> None:
    for _, dialogue in dialogues:
        for side in (AGENT, USER):
            other = dialogue.words[1 - side]
            for word in dialogue.words[side]:
                assert not any(w.start_s < word.end_s and word.start_s < w.end_s for w in other)
            power = np.square(dialogue.audio[side])
            heard = sum(
                power[int(w.start_s * 24_000) : int(w.end_s * 24_000)].sum()
                for w in dialogue.words[side]
            )
            assert heard > 0.97 * power.sum()


def test_the_same_seed_gives_the_same_dialogue(dialogues) -> None:
    again = performed("front_desk", 0)
    _, first = dialogues[0]
    assert np.array_equal(again.audio, first.audio)
    assert (again.words, again.actions) == (first.words, first.actions)
    _, other = dialogues[1]
    assert other.words != first.words


def test_a_quick_result_of_a_mistaken_call_is_there_and_is_not_spoken(dialogues) -> None:
    scripts = (script("front_desk", seed) for seed in range(200))
    exchange = next(
        exchange
        for played in scripts
        for exchange in played.exchanges
        if len(exchange.request.calls) == 2 and exchange.confirm is None
    )
    quick = dataclasses.replace(exchange, latency_s=0.05)
    played = dataclasses.replace(script("front_desk", 0), exchanges=(quick,))
    found = perform(played, "flite:slt", "flite:rms", "neutral", "test", random.Random(0))
    kinds = [(action.kind, action.number) for action in found.actions]
    assert kinds == [("call", 1), ("result", 1), ("revise", 2), ("result", 2)]
    call, stale, revision, result = found.actions
    assert stale.arguments.items() >= call.arguments.items()
    assert result.arguments == exchange.result
    assert stale.time_s < revision.time_s < result.time_s
    said = " ".join(word.text for word in found.words[AGENT] if word.start_s > stale.time_s)
    assert said == f"{exchange.reply.text} {played.goodbye.text}"
