import asyncio
import time
from pathlib import Path

import pytest
from tool_fakes import FakeJournal, FakeSource, VirtualLoop

from serve.tools.approvals import Approval
from serve.tools.call import Call
from serve.tools.modes import Change, Mode, Modes, keep
from serve.tools.policy import Breaker as BreakerRule
from serve.tools.policy import Compensation, Policy, Rule
from serve.tools.runner import Breaker, Refused, Runner
from serve.tools.source import ToolError

FILE = """\
grants: {shop: [orders, billing]}
handoff_failures: 3
tools:
  order_status:
    effect: read
    confirmation: none
    speculation: true
    rates: ["30/minute", 5 per second]
    timeout_s: 5
    retries: 2
    breaker: {failures: 5, reset_s: 30}
    concurrency: 4
  book_demo:
    effect: write
    confirmation: voice
    delivery: when_idle
    compensation: {tool: cancel_demo, fields: [ref]}
    redact: [phone]
    min_confidence: 0.5
    unsure: handoff
  cancel_demo: {effect: write, confirmation: voice, idempotent: true, retries: 3}
  cancel_subscription: {effect: irreversible, confirmation: supervisor, scopes: [billing]}
"""
RULES = "tools:\n  a:\n    effect: read\n    confirmation: none\n"  # 4 lines


def load(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return Policy.load(path)


def test_a_file_says_what_tools_may_do(tmp_path):
    policy = load(tmp_path, FILE)
    assert policy.handoff_failures == 3
    status = policy.rule("order_status", is_client_run=False)
    assert status == Rule(
        effect="read",
        confirmation="none",
        speculation=True,
        rates=("30/minute", "5 per second"),
        timeout_s=5,
        retries=2,
        breaker=BreakerRule(5, 30),
        concurrency=4,
    )
    book = policy.rule("book_demo", is_client_run=True)
    assert book.compensation == Compensation("cancel_demo", ("ref",))
    assert book.delivery == "when_idle"
    subscription = policy.rule("cancel_subscription", is_client_run=False)
    assert policy.is_granted("shop", subscription)
    assert not policy.is_granted("bank", subscription)
    assert policy.is_granted("bank", status)


@pytest.mark.parametrize("is_client_run", [True, False])
def test_what_a_file_does_not_name_needs_a_supervisor(tmp_path, is_client_run):
    rule = load(tmp_path, FILE).rule("anything", is_client_run)
    assert (rule.effect, rule.confirmation) == ("irreversible", "supervisor")
    assert not rule.speculation


def test_without_a_file_clients_run_their_own_tools_at_once():
    policy = Policy.open()
    own = policy.rule("anything", is_client_run=True)
    assert (own.confirmation, own.speculation) == ("none", True)
    assert own.effect == "irreversible"  # as far as anybody knows
    assert policy.rule("anything", is_client_run=False).confirmation == "supervisor"


def test_redacted_fields_are_so_at_any_depth(tmp_path):
    rule = load(tmp_path, FILE).rule("book_demo", is_client_run=False)
    given = {"phone": "5551234", "who": [{"phone": 1, "name": "ann"}], "n": 1}
    hidden = "[redacted]"
    assert rule.redacted(given) == {
        "phone": hidden,
        "who": [{"phone": hidden, "name": "ann"}],
        "n": 1,
    }
    assert given["phone"] == "5551234"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", r"line 1: the file is empty"),
        ("tools: [", r"line 1, column 9"),
        ("tools: \0", r"unacceptable character"),
        ("tools: !!python/object:os.system {}", r"line 1"),
        ("[]", r"line 1: Expected `object`"),
        ("grants: {}", r"line 1: .*missing required field `tools`"),
        ("grants: {}\ntool: {}\ntools: {}", r"line 2: .*unknown field `tool`"),
        (RULES.replace("read", "wriet"), r"line 3: tools.a.effect: Invalid enum value 'wriet'"),
        (RULES + "    efect: read", r"line 5: tools.a: .*unknown field `efect`"),
        (RULES.replace("    effect: read\n", ""), r"line 2: tools.a: .*missing .*`effect`"),
        (RULES + "    timeout_s: 0", r"line 5: tools.a.timeout_s: Expected `float` > 0"),
        (RULES + "    timeout_s: soon", r"line 5: tools.a.timeout_s: Expected `float`, got `str`"),
        (RULES + "    min_confidence: 1.5", r"line 5: tools.a.min_confidence: "),
        (RULES + "    scopes:\n    - ok\n    - 5", r"line 7: tools.a.scopes.1: "),
        (RULES + "    breaker:\n      reset_s: 1", r"line 5: tools.a.breaker: .*`failures`"),
        (RULES + "    breaker:\n      failures: 1\n      reset: 1", r"line 7: .*`reset`"),
        (RULES + "  b: read", r"line 5: tools.b: Expected `object`"),
        (RULES + "  5: {}", r"line 5: tools.5: Expected `str`"),
        ("grants:\n  x: [a]\n  y: b\n" + RULES, r"line 3: grants.y: Expected `array`"),
        (RULES + "    effect: write", r"line 5: `effect` is there twice"),
        (RULES + "  a: {effect: read, confirmation: none}", r"line 5: `a` is there twice"),
        (
            RULES.replace("read", "write") + "    speculation: true",
            r"line 5: tools.a.speculation: only what reads",
        ),
        (
            RULES.replace("none", "voice") + "    speculation: true",
            r"line 5: tools.a.speculation: .*confirmed",
        ),
        (
            RULES.replace("read", "irreversible") + "    retries: 1",
            r"line 5: tools.a.retries: only what reads",
        ),
        (
            RULES + "    rates:\n    - 1/minute\n    - often",
            r"line 7: tools.a.rates.1: .*often",
        ),
        (RULES + "    compensation: {tool: b}", r"line 5: tools.a.compensation: .*nothing to undo"),
        (
            RULES.replace("read", "write") + "    compensation:\n      tool: b",
            r"line 6: tools.a.compensation.tool: b is no other tool",
        ),
        (
            RULES.replace("read", "write") + "    compensation: {tool: a}",
            r"line 5: .*tool: a is no",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line(tmp_path, text, what):
    with pytest.raises(ValueError, match=f"(?s)policy.yaml.*{what}"):
        load(tmp_path, text)


# Modes.


@pytest.fixture
def modes():
    made = Modes()
    yield made
    made.close()


def test_the_strictest_mode_holds(modes):
    assert modes.of("shop", "s1", "book") is Mode.NORMAL
    modes.set("tenant:shop", Mode.CONFIRM_ALL, "operator:ann")
    modes.set("tool:book", Mode.READ_ONLY, "operator:ann")
    modes.set("session:s1", Mode.OFF, "operator:ann")
    assert modes.of("shop", "s1", "book") is Mode.OFF
    assert modes.of("shop", "s2", "book") is Mode.READ_ONLY
    assert modes.of("shop", "s2", "status") is Mode.CONFIRM_ALL
    assert modes.of("bank", "s2", "status") is Mode.NORMAL
    modes.set("all", Mode.OFF, "operator:ann")
    assert modes.of("bank", "s2", "status") is Mode.OFF
    modes.set("all", Mode.NORMAL, "operator:ann")
    modes.set("session:s1", Mode.NORMAL, "operator:ann")
    assert modes.of("shop", "s1", "book") is Mode.READ_ONLY
    assert modes.all == {"tenant:shop": Mode.CONFIRM_ALL, "tool:book": Mode.READ_ONLY}


@pytest.mark.parametrize("scope", ["", "everything", "all:x", "tenant:", "shop", "user:ann"])
def test_there_are_no_other_scopes(modes, scope):
    with pytest.raises(ValueError, match="scope"):
        modes.set(scope, Mode.OFF, "operator:ann")


def test_listeners_are_told_until_they_leave(modes):
    changes = []
    leave = modes.subscribe(changes.append)
    modes.set("all", Mode.OFF, "operator:ann")
    leave()
    modes.set("all", Mode.NORMAL, "operator:ann")
    assert changes == [Change("all", Mode.NORMAL, Mode.OFF, "operator:ann")]


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("tool:book off\n\n all   read_only \n", {"tool:book": Mode.OFF, "all": Mode.READ_ONLY}),
        ("all normal", {"all": Mode.NORMAL}),
        ("", {"all": Mode.OFF}),
        ("all of", {"all": Mode.OFF}),
        ("nobody off", {"all": Mode.OFF}),
        ("all", {"all": Mode.OFF}),
        ("tool:x off\n" * 10_000, {"all": Mode.OFF}),
    ],
)
def test_a_file_sets_modes_and_in_doubt_all_is_off(tmp_path, text, modes):
    path = tmp_path / "modes"
    path.write_text(text)
    made = Modes(path)
    made.close()
    assert made.all == modes


def test_a_file_that_is_no_text_means_off(tmp_path):
    path = tmp_path / "modes"
    path.write_bytes(b"\xff\xfe")
    for file in (path, tmp_path):
        made = Modes(file)
        made.close()
        assert made.all == {"all": Mode.OFF}


def until(is_so) -> None:
    ends_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.005)  # the event loop, if there is one, is stuck all the while


def test_the_file_works_while_the_event_loop_is_stuck(tmp_path):
    path = tmp_path / "modes"

    async def stuck() -> list[str]:
        modes, changes = Modes(path), []
        modes.subscribe(changes.append)
        modes.set("tool:book", Mode.READ_ONLY, "operator:ann")
        path.touch()
        until(lambda: modes.of("shop", "s1", "book") is Mode.OFF)
        path.unlink()
        until(lambda: modes.of("shop", "s1", "book") is Mode.READ_ONLY)
        modes.close()
        return [f"{one.actor} {one.after}" for one in changes]

    assert asyncio.run(stuck()) == ["operator:ann read_only", "file off", "file normal"]


def test_changes_are_written_down(modes):
    async def run() -> FakeJournal:
        journal = FakeJournal()
        keeping = asyncio.create_task(keep(modes, journal))
        await asyncio.sleep(0)
        journal.is_full = True
        modes.set("tool:x", Mode.OFF, "operator:ann")
        await asyncio.sleep(0.01)
        journal.is_full = False
        modes.set("tenant:shop", Mode.OFF, "operator:ann")
        while not journal.entries:
            await asyncio.sleep(0)
        keeping.cancel()
        return journal

    (entry,) = asyncio.run(run()).entries
    assert (entry.kind, entry.tenant, entry.actor) == ("mode", "shop", "operator:ann")
    assert (entry.before, entry.after) == ("normal", "off")
    assert entry.details == {"scope": "tenant:shop"}


# Approvals.


def call(**fields) -> Call:
    given = {"tool": "book", "arguments": {"day": "friday"}, **fields}
    return Call("call_s1_1", "s1", "shop", 1, **given)


def asked(method) -> Approval:
    return Approval("a", "call_s1_1", 0, call().arguments_hash, method, 60.0)


@pytest.mark.parametrize(
    ("method", "by", "is_enough"),
    [
        ("voice", "voice", True),
        ("voice", "console", True),
        ("dtmf", "voice", False),
        ("console", "console", True),
        ("console", "dtmf", False),
        ("supervisor", "console", False),
        ("supervisor", "supervisor", True),
        ("voice", "none", False),
    ],
)
def test_a_word_has_to_be_strong_enough(method, by, is_enough):
    approval = asked(method)
    if is_enough:
        approval.approve(call(), "ann", by)
        assert (approval.answer, approval.approver) == ("approved", "ann")
    else:
        with pytest.raises(PermissionError, match=f"{by} is not enough: {method}"):
            approval.approve(call(), "ann", by)
        assert approval.answer == ""


@pytest.mark.parametrize("other", [{"arguments": {"day": "monday"}}, {"revision": 1}])
def test_an_approval_is_of_what_was_asked_about(other):
    with pytest.raises(ValueError, match="not the one"):
        asked("voice").approve(call(**other), "ann", "voice")


def test_the_first_answer_counts():
    approval = asked("voice")
    approval.refuse("ann")
    with pytest.raises(ValueError, match="refused by ann already"):
        approval.approve(call(), "bob", "supervisor")
    with pytest.raises(ValueError, match="already"):
        approval.refuse("bob")


# The runner.


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_breaker_opens_and_tries_again():
    clock = Clock()
    breaker = Breaker(BreakerRule(2, 30), clock)
    breaker.ended(False)
    breaker.ended(True)
    breaker.ended(False)
    assert breaker.lets_through()
    breaker.ended(False)
    assert not breaker.lets_through()
    clock.now_s += 30
    assert breaker.lets_through()
    assert not breaker.lets_through()  # one at a time
    breaker.ended(False)
    clock.now_s += 29
    assert not breaker.lets_through()
    clock.now_s += 1
    assert breaker.lets_through()
    breaker.ended(True)
    assert breaker.lets_through()


def test_rates_are_those_of_a_session_and_a_tool(modes):
    runner = Runner(Policy.open(), modes, FakeJournal())
    rule = Rule("read", "none", rates=("2/hour",))
    for _ in range(2):
        runner.admit(call(), rule)
    with pytest.raises(Refused, match="2 per 1 hour") as refused:
        runner.admit(call(), rule)
    assert refused.value.code == "rate_limited"
    runner.admit(call(tool="other"), rule)
    runner.admit(Call("call_s2_1", "s2", "shop", 1, "book"), rule)


def run_in(loop: VirtualLoop, plan, rule: Rule, check=lambda: None, calls: int = 1):
    async def runs():
        modes, journal, source = Modes(), FakeJournal(), FakeSource()
        source.plan = plan
        runner = Runner(Policy.open(), modes, journal)
        all_ = (runner.run(source, call(), rule, check, lambda: None) for _ in range(calls))
        ended = await asyncio.gather(*all_, return_exceptions=True)
        return ended, source, journal

    return loop.run_until_complete(runs())


@pytest.fixture
def loop():
    made = VirtualLoop()
    yield made
    made.close()


def test_it_is_tried_again_where_nothing_has_happened_and_that_is_written_first(loop):
    rule = Rule("read", "none", retries=2)
    (result,), source, journal = run_in(loop, [(0, "again"), (0, "again"), (0, "ok")], rule)
    assert result == {"day": "friday", "ref": "R3"}
    assert [run.key for run in source.runs] == [call().key] * 3
    assert [entry.details["attempt"] for entry in journal.entries] == [2, 3]
    assert 0.1 < loop.time() < 2


@pytest.mark.parametrize(
    ("end", "retries", "tries"), [("error", 2, 1), ("bug", 2, 1), ("again", 0, 1), ("again", 2, 3)]
)
def test_it_is_not_tried_again_otherwise(loop, end, retries, tries):
    rule = Rule("read", "none", retries=retries)
    (error,), source, _ = run_in(loop, [(0, end)] * 5, rule)
    assert isinstance(error, RuntimeError if end == "bug" else ToolError)
    assert len(source.runs) == tries


def test_it_is_asked_before_every_try_whether_it_still_may(loop):
    asked = []

    def check() -> None:
        asked.append(loop.time())
        if len(asked) == 2:
            raise Refused("denied", "the mode is off")

    (error,), source, _ = run_in(loop, [(0, "again")] * 3, Rule("read", "none", retries=3), check)
    assert isinstance(error, Refused)
    assert len(source.runs) == 1


def test_only_so_many_run_at_once(loop):
    rule = Rule("read", "none", concurrency=2)
    _, source, _ = run_in(loop, [(1.0, "ok")] * 5, rule, calls=5)
    assert len(source.runs) == 5
    assert loop.time() == pytest.approx(3.0)
    assert source.runs[-1].timeout_s == pytest.approx(8.0)  # what is left of ten seconds
