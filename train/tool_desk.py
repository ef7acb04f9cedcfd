"""Answers an agent's calls while it talks: a stand-in for a tool runtime."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.dialogue import Action
from data.scripts.backend import Backend
from train.conversation import Calls, Event


@dataclass
class _Run:
    """What a call is going to get, `latency_s` after it runs but not before `not_before_s`."""

    result: Mapping[str, Any]
    latency_s: float = 0.0
    not_before_s: float = 0.0
    due_s: float = math.inf

    def start(self, now_s: float) -> None:
        self.due_s = max(now_s + self.latency_s, self.not_before_s)


class ToolDesk:
    """The calls of one conversation.

    A call that is in `labels` gets the result that it has there, when it has it there or as soon as
    it is made (none where it has none there: it is taken back or replaced); any other gets the
    backend's, after its latency. What needs a confirmation runs once it is confirmed; what is taken
    back or replaced before its result is there gets none.
    """

    def __init__(self, backend: Backend, labels: Sequence[Action] = ()) -> None:
        self._backend = backend
        self._calls = Calls()
        self._runs: dict[int, _Run] = {}
        results = {action.number: action for action in labels if action.kind == "result"}
        self._labelled = [
            (_what(action.tool, action.arguments), results.get(action.number))
            for action in labels
            if action.kind in ("call", "revise")
        ]

    def made(self, event: Event) -> None:
        """Takes an action that the agent has made."""
        action = self._calls.made(event)
        self._runs.pop(action.revises, None)
        if action.kind in ("call", "revise"):
            run = self._run_of(action.tool, action.arguments)
            if run is not None:
                self._runs[action.number] = run
                if not self._backend.needs_confirmation(action.tool):
                    run.start(event.time_s)
        elif action.kind == "cancel":
            self._runs.pop(action.number, None)
        elif action.kind == "confirm" and action.number in self._runs:
            self._runs[action.number].start(event.time_s)

    def ready(self, now_s: float) -> list[tuple[int, Mapping[str, Any]]]:
        """The results that have come by now, each once: (the call's number, what it holds)."""
        due = [number for number, run in self._runs.items() if run.due_s <= now_s]
        return [(number, self._runs.pop(number).result) for number in due]

    def _run_of(self, tool: str, arguments: Mapping[str, Any]) -> _Run | None:
        what = _what(tool, arguments)
        for place, (labelled, result) in enumerate(self._labelled):
            if labelled == what:
                del self._labelled[place]
                return result and _Run(result.arguments, not_before_s=result.time_s)
        answer = self._backend.answer(tool, arguments)
        return _Run(answer.result, answer.latency_s)


def _what(tool: str, arguments: Mapping[str, Any]) -> str:
    return f"{tool} {json.dumps(dict(arguments), sort_keys=True)}"
