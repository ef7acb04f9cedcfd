import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import serve.front_desk
from data.scripts.domain import load_domain
from serve.front_desk.company import Company
from serve.front_desk.tools import FrontDesk, front_desk
from serve.tools.functions import Functions
from serve.tools.policy import Policy
from serve.tools.runtime import ToolRuntime
from serve.tools.source import Run, ToolError
from serve.tools.sources import read_sources

DOMAIN = load_domain("front_desk")
FOLDER = Path(serve.front_desk.__file__).parent


@pytest.fixture(scope="module")
def company() -> Company:
    return Company(":memory:", 0)


@pytest.fixture(scope="module")
def functions() -> Functions:
    return Functions(front_desk())


@pytest.fixture
def desk(company) -> FrontDesk:
    return FrontDesk(company)


def run(key: str = "key", session: str = "session") -> Run:
    return Run(session, "local", "call", key, 5.0)


def arguments(tool: str, rng: random.Random) -> dict[str, str]:
    """As a suite may name them."""
    slots = DOMAIN.tools[tool].slots
    return {name: DOMAIN.slots[slot].draw(rng) for name, slot in slots.items()}


def test_the_tools_are_declared_as_the_checkpoint_was_trained_with_them(functions):
    tools = {tool.name: tool for tool in asyncio.run(functions.declared())}
    assert [*tools] == [*DOMAIN.tools]
    for name, tool in DOMAIN.tools.items():
        assert tools[name].description == tool.description
        assert tools[name].parameters == tool.parameters
        assert [*tools[name].parameters["properties"]] == [*tool.parameters["properties"]]


@pytest.mark.parametrize("tool", [*DOMAIN.tools])
def test_what_callers_may_name_is_answered_in_values_that_the_agent_can_say(tool, functions):
    rng = random.Random(tool)
    answered = 0
    for number in range(30):
        given = arguments(tool, rng)
        try:
            result = asyncio.run(functions.run(tool, given, run(f"{tool} {number}")))
        except ToolError:  # there is nothing of that number, or no time
            continue
        answered += 1
        required = DOMAIN.tools[tool].required
        assert {name: result.get(name) for name in required} == {n: given[n] for n in required}
        if reply := DOMAIN.replies.get(tool):
            for field, slot in reply.results.items():
                DOMAIN.slots[slot.format(**given)].say(result[field], rng)
    assert answered >= 20


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("order_status", {"order_id": "12340"}),
        ("check_calendar", {"person": "nobody", "day": "monday"}),
        ("check_calendar", {"person": "carla", "day": "someday"}),
        ("book_demo", {"person": "carla", "day": "monday", "time": "03:00"}),
        ("move_appointment", {"day": "monday", "time": "03:00"}),
        ("send_message", {"to": "the president"}),
        ("cancel_subscription", {"account_id": "123450"}),
    ],
)
def test_what_the_company_does_not_know_is_not_found(tool, given, functions):
    with pytest.raises(ToolError, match="not_found"):
        asyncio.run(functions.run(tool, given, run()))


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("order_status", {"order_id": "1234"}),
        ("faq", {"topic": "love"}),
        ("create_lead", {"name": "tom"}),
        ("order_status", {"order_id": "12345", "run": {"key": "another"}}),
    ],
)
def test_arguments_that_the_schema_does_not_allow_are_refused(tool, given, functions):
    with pytest.raises(ToolError, match="invalid arguments"):
        asyncio.run(functions.run(tool, given, run()))


def test_a_seed_makes_the_company():
    def answers(seed: int) -> list[dict[str, Any]]:
        desk = FrontDesk(Company(":memory:", seed))
        calendar = [
            desk.check_calendar(person, day)
            for person in DOMAIN.slots["person"].values or ()
            for day in DOMAIN.slots["day"].values or ()
        ]
        return [
            desk.order_status("48192"),
            desk.faq("hours"),
            desk.route_call("sales", run()),
            *calendar,
        ]

    assert answers(3) == answers(3)
    assert answers(3) != answers(4)
    assert {a["free"] for a in answers(3) if "free" in a} == {*(DOMAIN.slots["free"].values or ())}


WRITES = {
    "book_demo": ("demos", {"person": "chen", "day": "friday", "time": "10:00"}),
    "move_appointment": ("appointments", {"day": "tuesday", "time": "09:30"}),
    "send_message": ("messages", {"to": "billing", "priority": "urgent"}),
    "route_call": ("transfers", {"department": "support"}),
    "create_lead": ("leads", {"name": "maya", "phone": "5550123", "interest": "analytics"}),
    "cancel_subscription": ("cancelled_accounts", {"account_id": "123456"}),
    "handoff": ("handoffs", {"reason": "requested"}),
}


def test_every_tool_that_writes_is_tried():
    writes = {name for name, tool in DOMAIN.tools.items() if tool.effect != "read"}
    assert {*WRITES} == writes


@pytest.mark.parametrize("tool", [*WRITES])
def test_one_key_writes_once_however_often_and_at_once_it_is_asked(tool):
    table, given = WRITES[tool]
    company = Company(":memory:", 0)
    ask = getattr(FrontDesk(company), tool)
    with ThreadPoolExecutor(8) as threads:
        results = [*threads.map(lambda _: ask(**given, run=run("one")), range(50))]
    assert all(result == results[0] for result in results)
    assert len(company.rows(f"select * from {table}")) == 1
    assert company.rows("select key from written") == [("one",)]


def test_another_key_writes_again(desk, company):
    before = len(company.rows("select * from messages"))
    desk.send_message("billing", run("first"))
    desk.send_message("billing", run("second"))
    assert len(company.rows("select * from messages")) == before + 2


def test_a_key_is_known_after_a_restart(tmp_path):
    database = str(tmp_path / "company.sqlite3")
    first = FrontDesk(Company(database, 0)).create_lead("maya", "5550123", run("one"))
    company = Company(database, 7)  # another seed makes no other company of what is there
    assert FrontDesk(company).create_lead("maya", "5550123", run("one")) == first
    assert company.rows("select phone from leads") == [("5550123",)]


def test_a_time_is_booked_once_and_then_no_longer_free():
    company = Company(":memory:", 0)
    desk = FrontDesk(company)
    days = DOMAIN.slots["day"].values or ()
    day = next(day for day in days if desk.check_calendar("carla", day)["free"] == "open")
    desk.book_demo("carla", day, "14:00", run("one"))
    assert desk.check_calendar("carla", day)["free"] == "morning"
    with pytest.raises(ToolError, match="not_found"):
        desk.book_demo("carla", day, "14:00", run("two"))
    assert len(company.rows("select * from demos")) == 1
    assert company.rows("select key from written") == [("one",)]  # what failed may be tried again


def test_an_appointment_is_that_of_the_session():
    company = Company(":memory:", 0)
    desk = FrontDesk(company)
    desk.move_appointment("monday", "09:00", run("one", "tom's"))
    desk.move_appointment("tuesday", "10:00", run("two", "tom's"))
    desk.move_appointment("friday", "11:00", run("three", "ann's"))
    rows = company.rows("select session, day, time from appointments order by session")
    assert rows == [("ann's", "friday", "11:00"), ("tom's", "tuesday", "10:00")]


def test_the_files_of_the_front_desk_fit_one_another_and_the_domain():
    policy = Policy.load(FOLDER / "policy.yaml")
    assert {*policy.rules} == {*DOMAIN.tools}
    for name, tool in DOMAIN.tools.items():
        rule = policy.rules[name]
        assert rule.effect == tool.effect
        assert rule.speculation == (tool.effect == "read")
        asks = name in DOMAIN.replies and bool(DOMAIN.replies[name].confirm)
        assert rule.confirmation == ("voice" if asks else "none")
    rule = policy.rules["cancel_subscription"]
    assert policy.is_granted("local", rule)
    assert not policy.is_granted("somebody", rule)


def test_the_file_of_sources_brings_the_tools():
    async def names() -> list[str]:
        sources = read_sources(FOLDER / "sources.yaml")
        await sources.open()
        result = await sources.run("order_status", {"order_id": "48192"}, run())
        assert result["order_id"] == "48192"
        tools = [tool.name for tool in (await sources.listed())["front_desk"]]
        await sources.close()
        return tools

    assert asyncio.run(names()) == [*DOMAIN.tools]


def test_its_configuration_has_a_rule_for_each_tool(tmp_path: Path) -> None:
    with initialize_config_dir(str(FOLDER.parents[1] / "conf"), version_base=None):
        cfg = compose("front_desk", overrides=[f"tools.audit={tmp_path}/audit.sqlite"])
    assert cfg.session.instructions.startswith("You are Ava")

    async def names() -> set[str]:
        runtime = ToolRuntime(instantiate(cfg.tools))
        await runtime.open()
        await runtime.close()
        return {tool.name for tool in runtime.listed["front_desk"]}

    assert asyncio.run(names()) == {*Policy.load(FOLDER / "policy.yaml").rules}
