"""The front desk's tools, as functions: what stands in their annotations and docstrings is what the
agent is told of them, and what the shipped checkpoint was trained with.

Results repeat the arguments that they answer, and errors are the words that it knows: `not_found`,
`denied`. What is written is written once for each key of a run.
"""

import sqlite3
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from serve.front_desk.company import Company
from serve.tools.source import Run, ToolError

OrderId = Annotated[str, Field(pattern=r"^\d{5}$")]
AccountId = Annotated[str, Field(pattern=r"^\d{6}$")]
Phone = Annotated[str, Field(pattern=r"^\d{7}$")]
Time = Annotated[str, Field(pattern=r"^\d\d:[03]0$")]
Topic = Literal["hours", "address", "returns", "shipping", "pricing", "warranty"]
Priority = Literal["normal", "urgent"]
Department = Literal["sales", "billing", "support"]
Reason = Literal["requested", "low_confidence", "repeated_failure", "policy"]
Result = dict[str, Any]


def front_desk(database: str = ":memory:", seed: int = 0) -> list[Callable[..., Result]]:
    """The ten tools on a company of their own, kept in `database` where that is a file."""
    desk = FrontDesk(Company(database, seed))
    return [
        desk.order_status,
        desk.check_calendar,
        desk.book_demo,
        desk.move_appointment,
        desk.send_message,
        desk.faq,
        desk.route_call,
        desk.create_lead,
        desk.cancel_subscription,
        desk.handoff,
    ]


class FrontDesk:
    """Where callers ask."""

    def __init__(self, company: Company) -> None:
        self._company = company

    def order_status(self, order_id: OrderId) -> Result:
        """Looks up where an order is and when it arrives."""
        query = "select status, eta from orders where order_id = ?"
        status, eta = self._one(query, order_id)
        return {"order_id": order_id, "status": status, "eta": eta}

    def check_calendar(self, person: str, day: str) -> Result:
        """Says when a person is free on a day."""
        self._check(person=person, day=day)
        return {"person": person, "day": day, "free": self._company.free(person, day)}

    def book_demo(self, person: str, day: str, time: Time, run: Run) -> Result:
        """Books a product demo with a person."""
        self._check(person=person, day=day, time=time)
        room = self._company.draw("room", person, day, time)
        return self._write(
            {"person": person, "day": day, "time": time, "room": room},
            run,
            {
                "insert into busy values (?, ?, ?)": [person, day, time],
                "insert into demos values (?, ?, ?, ?, ?)": [person, day, time, room, run.session],
            },
        )

    def move_appointment(self, day: str, time: Time, run: Run) -> Result:
        """Moves the caller's appointment to another day and time."""
        self._check(day=day, time=time)
        status = self._company.draw("appointment_state", day, time)
        statement = "insert or replace into appointments values (?, ?, ?, ?)"
        return self._write(
            {"day": day, "time": time, "status": status},
            run,
            {statement: [run.session, day, time, status]},
        )

    def send_message(self, to: str, run: Run, priority: Priority = "normal") -> Result:
        """Sends a team or a person a message that the caller called."""
        self._check(to=to)
        status = self._company.draw("message_state", to, priority)
        said = {"to": to} if priority == "normal" else {"to": to, "priority": priority}
        statement = "insert into messages values (?, ?, ?, ?)"
        return self._write(
            {**said, "status": status}, run, {statement: [to, priority, status, run.session]}
        )

    def faq(self, topic: Topic) -> Result:
        """Answers about opening hours, address, returns, shipping, pricing and warranty."""
        (answer,) = self._one("select answer from policies where topic = ?", topic)
        return {"topic": topic, "answer": answer}

    def route_call(self, department: Department, run: Run) -> Result:
        """Puts the caller through to a department."""
        wait = self._company.draw("line_wait", department)
        statement = "insert into transfers values (?, ?)"
        return self._write(
            {"department": department, "wait": wait}, run, {statement: [department, run.session]}
        )

    def create_lead(self, name: str, phone: Phone, run: Run, interest: str = "") -> Result:
        """Notes a caller who wants to be called back."""
        when = self._company.draw("callback", name, phone)
        said = {"name": name, "phone": phone} | ({"interest": interest} if interest else {})
        statement = "insert into leads values (?, ?, ?, ?)"
        return self._write({**said, "when": when}, run, {statement: [name, phone, interest, when]})

    def cancel_subscription(self, account_id: AccountId, run: Run) -> Result:
        """Ends the subscription of an account for good."""
        if account_id.endswith("0"):
            raise ToolError("not_found")
        ends = self._company.draw("end_date", account_id)
        statement = "insert or ignore into cancelled_accounts values (?, ?)"
        return self._write(
            {"account_id": account_id, "ends": ends}, run, {statement: [account_id, ends]}
        )

    def handoff(self, reason: Reason, run: Run) -> Result:
        """Gives the call to a human."""
        statement = "insert into handoffs values (?, ?)"
        return self._write({"reason": reason}, run, {statement: [reason, run.session]})

    def _one(self, query: str, given: str) -> tuple[str, ...]:
        if not (rows := self._company.rows(query, given)):
            raise ToolError("not_found")
        return rows[0]

    def _check(self, **named: str) -> None:
        """Each must be a value of the slot of that name."""
        if any(value not in self._company.values(slot) for slot, value in named.items()):
            raise ToolError("not_found")

    def _write(self, result: Result, run: Run, statements: dict[str, list[str]]) -> Result:
        try:
            return self._company.write_once(run.key, result, statements)
        except sqlite3.IntegrityError:
            raise ToolError("not_found") from None  # such a time is not free any more
