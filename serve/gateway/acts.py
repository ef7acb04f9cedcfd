"""One session's actions: what the agent does goes to the tools' desk, what the desk tells to
whoever listens, what calls bring to the agent.

The engine numbers calls; everybody else knows them as `call_SESSION_NUMBER`.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from serve.engine.messages import Acted
from serve.gateway.events import CallCancelled, CallMade, Event, ToolEvent
from serve.gateway.toolbox import Toolbox
from serve.gateway.upstream import Upstream
from serve.tools.call import State
from serve.tools.desk import Desk
from serve.tools.policy import Delivery
from serve.tools.runtime import ToolRuntime
from serve.tools.told import ConfirmationAsked, Told, ToolChanged

_CALLS = ("call", "revise")
_LEFT_FRAMES = 3  # in a row without somebody's voice: he has ended; words have gaps
_YES, _NO = "1", "2"  # keys of a telephone
_UNAVAILABLE = {"error": "unavailable"}


class Acts:
    """`approvals` are asked for and not yet given, by their ids."""

    def __init__(
        self,
        session: str,
        tenant: str,
        tools: ToolRuntime,
        box: Toolbox,
        upstream: Upstream,
        tell: Callable[[Event], None],
    ) -> None:
        told = (self._deliver, self._told)
        self.desk = Desk(session, tenant, tools.runner, box.sources, *told, box.confirmed)
        self.approvals: dict[str, ConfirmationAsked] = {}
        self._policy, self._upstream, self._tell = tools.policy, upstream, tell
        self._number = -1  # of the newest frame
        self._said: set[tuple[int, str, str, int]] = set()  # what the engine has said of actions
        self._clients: set[str] = set()  # calls that the client is at
        self._silent_frames = {"caller": _LEFT_FRAMES, "agent": _LEFT_FRAMES}

    def heard(self, number: int, is_callers: bool, is_agents: bool) -> None:
        """A frame: who is being listened to in it, and whether the agent's voice is."""
        self._number = number
        self._count("caller", is_callers, self.desk.caller_has_floor)
        self._count("agent", is_agents, self.desk.agent_speaks)

    def _count(self, who: str, has_voice: bool, tell: Callable[[bool], None]) -> None:
        before, after = self._silent_frames[who], 0 if has_voice else self._silent_frames[who] + 1
        self._silent_frames[who] = after
        if (before < _LEFT_FRAMES) != (after < _LEFT_FRAMES):
            tell(after < _LEFT_FRAMES)

    def acted(self, reply: Acted, is_listened_to: bool) -> None:
        """What the agent does. An engine that goes on for another one says again what that one had
        said. Where nobody listens (a human talks) no call runs."""
        key = (reply.number, reply.kind, reply.action, reply.call)
        if key in self._said:
            return
        self._said.add(key)
        self._number = max(self._number, reply.number)
        is_call = reply.action in _CALLS
        if not is_listened_to:
            if is_call and reply.kind == "made":
                self._upstream.give(reply.call, _UNAVAILABLE)
        elif reply.kind == "opened":
            if is_call:
                self.desk.opened(reply.call)
        elif is_call:
            about = (reply.tool, reply.arguments, reply.confidence, reply.revises)
            self.desk.made(reply.call, *about)
        elif reply.action == "cancel":
            self.desk.cancelled(reply.call)
        elif reply.action == "confirm":
            self.desk.confirmed(reply.call)
        else:
            self.desk.hand_off(str(reply.arguments.get("reason", "requested")), reply.confidence)

    def pressed(self, digit: str) -> bool:
        """Whether a key was an answer to what waits for the caller's."""
        waiting = [one for one in self.approvals.values() if one.method in ("voice", "dtmf")]
        if not waiting or digit not in (_YES, _NO):
            return False
        with contextlib.suppress(KeyError, ValueError):  # who presses twice has answered already
            if digit == _YES:
                self.desk.approve(waiting[-1].approval_id, "caller", "dtmf")
            else:
                self.desk.refuse(waiting[-1].approval_id, "caller")
        return True

    # What the desk tells.

    def _deliver(self, call: int, result: Mapping[str, Any], how: Delivery) -> None:
        if how == "silent":  # something to know, and nothing to be said
            self._upstream.tell(f"Call {call} has brought {json.dumps(result)}", None)
        else:
            self._upstream.give(call, dict(result))

    def _told(self, told: Told) -> None:
        if isinstance(told, ConfirmationAsked):
            self.approvals[told.approval_id] = told
        if isinstance(told, ToolChanged):
            if told.state is not State.AWAITING_CONFIRMATION or not told.is_wanted:
                over = [k for k, v in self.approvals.items() if v.call_id == told.call_id]
                for approval_id in over:
                    del self.approvals[approval_id]
            self._tell_client(told)
            rule = self._policy.rule(told.tool, told.is_client_run)
            given, result = rule.redacted(told.arguments), rule.redacted(told.result)
            told = replace(told, arguments=given, result=result)
        self._tell(ToolEvent(self._number, told))

    def _tell_client(self, told: ToolChanged) -> None:
        """Who runs a call is told of it once, and once more where it is no longer wanted."""
        is_at_it, is_running = told.call_id in self._clients, told.state is State.RUNNING
        if is_at_it and not told.is_wanted:
            self._clients.discard(told.call_id)
            self._tell(CallCancelled(told.call_id, self._number))
        elif is_running and told.is_client_run and told.is_wanted and not is_at_it:
            self._clients.add(told.call_id)
            made = (told.tool, told.arguments, told.confidence, told.supersedes)
            self._tell(CallMade(told.call_id, self._number, *made))
