"""suite=front_desk: its own figures, on agents that play the labels and on some who err."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from label_agent import LabelAgent, Part, part_of, tokenizer_of

from data.dialogue import USER, Action, Dialogue
from data.line import Line
from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.suites.suite import Suites, load_suites
from data.voices.utterance import SAMPLE_RATE_HZ
from train import intervals
from train.bars import BARS
from train.report import Report, markdown
from train.scoring import agent_voice, front_desk_suite, quiet_calls, recognizers
from train.scoring.dialogue_loop import caller_of, converse
from train.scoring.dialogue_tally import tally
from train.scoring.front_desk_figures import figures
from train.scoring.front_desk_suite import FrontDeskSuite
from train.scoring.front_desk_tally import Judged, judge
from train.scoring.patience import cues_of, delayed

CONF = Path(__file__).resolve().parents[1] / "conf"
DOMAIN = load_domain("front_desk")
ITEMS = (
    ("single", 1), ("chained", 0), ("correction", 0), ("no_call", 0), ("turn_end", 0),
    ("turn_end", 3), ("pause", 1), ("listening", 0), ("barge_in", 0), ("backchannel", 0),
    ("tic", 1), ("side_talk", 0), ("noise", 0), ("urgency", 0), ("undeclared", 0),
)  # fmt: skip


# Intervals


def test_wilson_is_the_books() -> None:
    metric = intervals.wilson(180, 300)
    assert (metric.value, metric.n) == (0.6, 300)
    assert metric.low == pytest.approx(0.5436, abs=1e-4)  # Wilson 1927, by statsmodels' formula
    assert metric.high == pytest.approx(0.6538, abs=1e-4)
    assert intervals.wilson(0, 300).high == pytest.approx(0.0126, abs=1e-4)
    assert intervals.wilson(300, 300).high == 1
    with pytest.raises(ValueError, match="5 of 3"):
        intervals.wilson(5, 3)


def test_percentiles_resample_clusters() -> None:
    values = [*range(100)] * 2
    alone = intervals.percentile(values, range(200), 50, "ms")
    assert (alone.value, alone.n) == (49, 200)
    together = intervals.percentile(values, [value // 25 for value in values], 50, "ms")
    assert together.value == alone.value
    assert width(together) > 2 * width(alone) > 0
    assert intervals.percentile([3, 1, 2], "abc", 95, "ms").value == 3
    with pytest.raises(ValueError, match="2 clusters"):
        intervals.percentile([1, 2, 3], "ab", 50, "ms")


def test_what_has_a_cause_in_common_tells_less() -> None:
    once = intervals.clustered_share([1] * 16 + [0] * 4, [1] * 20)
    assert once == intervals.wilson(16, 20)
    thrice = intervals.clustered_share([3] * 16 + [0] * 4, [3] * 20)
    assert (thrice.low, thrice.high, thrice.n) == (once.low, once.high, 60), "seeds that agree"
    mixed = intervals.clustered_share([3, 2, 2, 3, 2] * 4, [3] * 20)
    assert mixed == intervals.wilson(48, 60), "seeds that have no more in common than others"
    between = intervals.clustered_share([3] * 14 + [1] * 6, [3] * 20)
    assert width(intervals.wilson(48, 60)) < width(between) < width(once)
    assert intervals.clustered_share([3] * 20, [3] * 20).low == intervals.wilson(20, 20).low
    with pytest.raises(ValueError, match="must be the same"):
        intervals.clustered_share([1], [1, 2])


def width(metric: intervals.Metric) -> float:
    assert metric.low is not None
    assert metric.high is not None
    return metric.high - metric.low


# Figures


@functools.cache
def dialogues() -> tuple[tuple[str, Dialogue], ...]:
    suites = load_suites("front_desk").suites
    return tuple(
        (name, suites[name].dialogue(n, ["silent"], "silent", Line())) for name, n in ITEMS
    )


def judged(change: Callable[[str, Dialogue, Part], Part]) -> list[Judged]:
    parts = [change(suite, one, part_of(one)) for suite, one in dialogues()]
    agent = LabelAgent(parts, tokenizer_of([one for _, one in dialogues()]))
    callers = [dataclasses.replace(caller_of(d), cues=cues_of(d)) for _, d in dialogues()]
    found = {one.name: one for _, one in converse(agent, callers, 4, Backend(DOMAIN))}
    ones = []
    for suite, dialogue in dialogues():
        conversation = found[dialogue.name]
        dialogue = delayed(dialogue, conversation.waits)
        counted = tally(DOMAIN, dialogue, conversation)
        ones.append(judge(DOMAIN, "seen", suite, dialogue, conversation, counted))
    return ones


def values(ones: list[Judged]) -> dict[str, float]:
    return {name: round(metric.value, 6) for name, metric in figures(ones).items()}


def as_labelled(suite: str, dialogue: Dialogue, part: Part) -> Part:
    return part


@functools.cache
def perfect() -> dict[str, float]:
    return values(judged(as_labelled))


def test_the_labels_agent_has_every_figure_right() -> None:
    for name in (
        "call_f1", "call_args_exact", "correction_pass", "early_call_share", "turn_answered",
        "bargein_yield", "backchannel_selectivity", "tic_selectivity", "side_talk_selectivity",
        "noise_selectivity", "urgency_accuracy", "role_names_right", "reply_slots_right",
        "own_backchannel_share",
    ):  # fmt: skip
        assert perfect()[name] == 1, name
    for name in (
        "false_call_rate", "pause_takeover", "pause_begun", "listening_takeover",
        "undeclared_calls",
    ):  # fmt: skip
        assert perfect()[name] == 0, name
    assert 1 < perfect()["own_backchannels_per_minute"] < 60
    assert 0 <= perfect()["need_to_call_ms_p95"] <= 80
    assert 160 <= perfect()["turn_gap_ms_p50"] <= 500
    assert perfect()["turn_gap_ms_p50"] <= perfect()["answer_gap_ms_p50"]
    assert 0 < perfect()["bargein_stop_ms_p95"] <= 200, "two frames; it waits for no caller"


def test_nobody_waits_for_an_agent_that_speaks_when_the_script_says() -> None:
    parts = [part_of(one) for _, one in dialogues()]
    agent = LabelAgent(parts, tokenizer_of([one for _, one in dialogues()]))
    callers = [dataclasses.replace(caller_of(d), waits={}, cues=cues_of(d)) for _, d in dialogues()]
    assert sum(len(caller.cues) for caller in callers) >= 5
    assert not any(c.waits for _, c in converse(agent, callers, 4, Backend(DOMAIN)))


def test_who_interrupts_waits_for_an_agent_that_is_late() -> None:
    (dialogue,) = (one for suite, one in dialogues() if suite == "barge_in")
    part = part_of(dialogue)
    late = part._replace(pcm=np.pad(part.pcm, (round(6.5 * SAMPLE_RATE_HZ), 0)))
    agent = LabelAgent([late], tokenizer_of([dialogue]))
    caller = dataclasses.replace(caller_of(dialogue), waits={}, cues=cues_of(dialogue))
    ((_, conversation),) = converse(agent, [caller], 1, Backend(DOMAIN))
    (wait,) = conversation.waits
    assert 0.5 <= wait.seconds <= 2.1
    over_s = wait.at_s + wait.seconds
    assert any(start_s < over_s - 0.1 < end_s for start_s, end_s in conversation.speech())


# Ways to be wrong.


def calls_late(suite: str, dialogue: Dialogue, part: Part) -> Part:
    """After the caller's turn: those that could have come before its end."""
    return part._replace(actions=tuple(a._replace(time_s=a.time_s + 4) for a in part.actions))


def calls_anyway(suite: str, dialogue: Dialogue, part: Part) -> Part:
    return part._replace(actions=(*part.actions, Action(2.0, "call", 9, "weather", {})))


def not_urgent(suite: str, dialogue: Dialogue, part: Part) -> Part:
    other = {"urgent": "normal"}
    changed = [
        a._replace(arguments={k: other.get(v, v) for k, v in a.arguments.items()})
        for a in part.actions
    ]
    return part._replace(actions=tuple(changed))


def silenced(suite: str, dialogue: Dialogue, part: Part) -> Part:
    """By whatever comes over its words."""
    pcm = part.pcm.copy()
    for over in dialogue.spells:
        if over.side == USER and over.manner != "turn":
            pcm[round((over.start_s + 0.3) * SAMPLE_RATE_HZ) :][:SAMPLE_RATE_HZ] = 0
    return part._replace(pcm=pcm)


def says_in_pauses(suite: str, dialogue: Dialogue, part: Part) -> Part:
    return _says_within("pause", 0.5, suite, dialogue, part)


def takes_over(suite: str, dialogue: Dialogue, part: Part) -> Part:
    return _says_within("listening", 1.5, suite, dialogue, part)


def only_listens(suite: str, dialogue: Dialogue, part: Part) -> Part:
    return _says_within("listening", 0, suite, dialogue, part)


def _says_within(where: str, seconds: float, suite: str, dialogue: Dialogue, part: Part) -> Part:
    """Only that, from a third of the caller's first turn on."""
    pcm = part.pcm.copy()
    turn = next(s for s in dialogue.spells if s.side == USER)
    if suite == where:
        first, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in (turn.start_s, turn.end_s))
        pcm[first:end] = 0
        pcm[first + (end - first) // 3 :][: round(seconds * SAMPLE_RATE_HZ)] = 0.2
    return part._replace(pcm=pcm)


def forgets_its_name(suite: str, dialogue: Dialogue, part: Part) -> Part:
    first_s = min(s.start_s for s in dialogue.spells if s.side == USER)
    return part._replace(
        agent_words=tuple(
            w._replace(text="mmm") if w.start_s < first_s else w for w in part.agent_words
        )
    )


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        (calls_late, {"early_call_share", "need_to_call_ms_p50", "need_to_call_ms_p95"}),
        (calls_anyway, {"false_call_rate", "undeclared_calls", "call_f1", "correction_pass"}),
        (not_urgent, {"urgency_accuracy"}),
        (
            silenced,
            {f"{kind}_selectivity" for kind in ("backchannel", "tic", "side_talk", "noise")},
        ),
        (says_in_pauses, {"pause_begun"}),
        (
            takes_over,
            {"listening_takeover", "own_backchannel_share", "own_backchannels_per_minute"},
        ),
        (only_listens, {"own_backchannel_share", "own_backchannels_per_minute"}),
        (forgets_its_name, {"role_names_right"}),
    ],
)
def test_what_is_wrong_shows_in_its_own_figures(change, worse: set[str]) -> None:
    found = values(judged(change))
    differ = {name for name, value in perfect().items() if found.get(name) != value}
    assert worse <= differ
    assert differ <= worse | {"passed", "reply_slots_right"}


def test_what_seeds_make_of_an_item_is_one_cluster() -> None:
    (one,) = (one for one in judged(as_labelled) if one.suite == "single")
    pairs = tuple(pair._replace(is_exact=False) for pair in one.tally.pairs)
    other_seed = dataclasses.replace(one.tally, name=f"{one.tally.name} 2", pairs=pairs)
    wrong = dataclasses.replace(one, tally=other_seed)
    other = dataclasses.replace(one, row="new")
    assert one.item == wrong.item != other.item
    found = figures([one, wrong, other])
    assert found["call_args_exact"].value == pytest.approx(2 / 3)
    assert (found["call_args_exact"].n, found["call_f1"].n) == (3, 2)


# Quiet calls


def test_what_is_said_into_silence_is_counted_a_minute() -> None:
    callers = list(quiet_calls.callers("front_desk", 2))
    assert [len(caller.audio) for caller in callers] == [60 * SAMPLE_RATE_HZ] * 2
    pcm = np.zeros(60 * SAMPLE_RATE_HZ, np.float32)
    for second in (1.0, 20.0, 20.9, 40.0):  # a greeting, one saying with a pause, another one
        pcm[round(second * SAMPLE_RATE_HZ) :][: SAMPLE_RATE_HZ // 2] = 0.2
    _, dialogue = dialogues()[0]
    made = (Action(30.0, "call", 1, "faq", {"topic": "hours"}),)
    part = part_of(dialogue)._replace(pcm=pcm, actions=(), agent_words=(), user_words=())
    agent = LabelAgent([part, part._replace(actions=made)], tokenizer_of([dialogue]))

    def hold(callers):
        return converse(agent, callers, 2, Backend(DOMAIN))

    found = quiet_calls.figures(hold, "front_desk", 2)
    assert found["silence_said_per_minute"].value == 2
    assert found["silence_said_most"].value == 2
    assert found["silence_calls"].value == 1
    assert quiet_calls.figures(hold, "front_desk", 0) == {}


# The suite


def silent_voices(domain: str) -> Suites:
    voices = {"agent": ("silent",), "seen": ("silent",), "new": ("silent",)}
    return dataclasses.replace(load_suites(domain), voices=voices)


EACH = [*dict.fromkeys(name for name, _ in ITEMS)]
CONFIG = {
    "domain": "front_desk",
    "rows": {
        "seen": {"voices": "seen", "line": "clean", "suites": EACH},
        "new": {"voices": "new", "line": "clean", "suites": ["single", "correction", "urgency"]},
        "new_10db": {"voices": "new", "line": "10db", "suites": ["single"]},
        "new_mulaw": {"voices": "new", "line": "mulaw", "suites": ["single"]},
    },
    "dialogues": 2,
    "seeds": 1,
    "batch": 3,
    "heard_lines": 2,
    "quiet_minutes": 0,
    "cascades": [],
}


def test_one_report_has_every_name_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_desk_suite, "load_suites", silent_voices)
    monkeypatch.setattr(recognizers, "usable", lambda names: ([*names], []))
    monkeypatch.setattr(recognizers, "transcribe", lambda name, audio: "hello")
    monkeypatch.setattr(agent_voice, "dnsmos", lambda audio: 3.0)
    details, picture = tmp_path / "details.jsonl", tmp_path / "late.png"
    suite = FrontDeskSuite(**{**CONFIG, "details": str(details), "picture": str(picture)})
    voices, notes = suite._voices()
    assert not notes
    asked = [d for row in voices for _, d in suite._dialogues(row, voices[row])]
    agents = {
        prefix: LabelAgent([part_of(one) for one in asked], tokenizer_of(asked))
        for prefix in ("", "cascade_")
    }
    outcome = suite.measure(agents, None, processes=1)
    report = Report("front_desk", "test", 1.0, (0, 0, 0), outcome)
    measured = {*outcome.metrics}
    wanted = {bar.metric for bar in BARS["front_desk"]}
    assert wanted - measured == {"dnsmos_drop", "silence_said_most", "silence_calls"}
    assert {
        f"cascade_{name}" for name in ("call_f1_seen", "turn_gap_ms_p95", "agent_wer")
    } < measured
    assert outcome.metrics["cascade_call_args_exact_lead_new"].value == 0
    assert "| `call_f1_seen` | 1 (1 to 1) | >= 0.98 | held |" in markdown(report)
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert len(lines) == 2 * len(asked)
    assert {line["agent"] for line in lines} == {"checkpoint", "cascade"}
    assert picture.stat().st_size > 10_000
    assert any(note.startswith(f"checkpoint: {len(asked)} dialogues in ") for note in outcome.notes)


def test_each_seed_has_the_same_items_and_each_voice_says_each_scene() -> None:
    suite = FrontDeskSuite(**{**CONFIG, "seeds": 2})
    names = [one.name for _, one in suite._dialogues("new_10db", ["silent"])]
    assert names == ["single-000 0", "single-001 0", "single-000 1", "single-001 1"]
    single = load_suites("front_desk").suites["single"]
    who = [
        (number % 2, front_desk_suite._turned(single, number, "abcdef")[number % 6])
        for number in range(12)
    ]
    assert len({*who}) == 12


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dialogues", 0, "dialogues is 0"),
        ("seeds", 0, "seeds is 0"),
        ("quiet_minutes", -1, "quiet_minutes is -1"),
        ("cascades", [0], "pause_ms is 0"),
        ("domain", "bakery", "suites of 'bakery'"),
        ("rows", {"a": {"voices": "seen"}}, r"rows.a has \['voices'\]"),
        ("rows", {"a": {"voices": "seen", "line": "5db", "suites": []}}, "rows.a.line is '5db'"),
        ("rows", {"a": {"voices": "seen", "line": "clean", "suites": ["x"]}}, r"has \['x'\]"),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_be_run_says_why(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontDeskSuite(**{**CONFIG, field: value})


def test_a_server_that_does_not_answer_is_told_of() -> None:
    suite = FrontDeskSuite(**{**CONFIG, "server": "http://127.0.0.1:9"})
    with pytest.raises(ValueError, match=r"server is .*: does not answer"):
        suite.check(Path("nano"))


def test_the_suites_configuration_is_one() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("evaluate", ["suite=front_desk", "suite.dialogues=7", "suite.cascades=[500]"])
    suite = instantiate(cfg.suite, _convert_="object")
    assert (suite.dialogues, suite.cascades) == (7, [500])
    assert [*suite.rows] == ["seen", "new", "new_10db", "new_mulaw", "human"]
    assert "urgency" in suite.rows["new"]["suites"]
