"""A call in the terminal while it goes on: words as they come, who has the floor, what is done."""

import json
import sys
from typing import TextIO

from train.conversation import Event

_COLOURS = {"agent": "34", "caller": "33", "tool": "35"}  # as in the picture


class Screen:
    """Writes to `out`; on a terminal in colours."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._who = ""  # whose words stand in the line that is not ended
        self._floor = "nobody"

    def said(self, time_s: float, agent_text: str, caller_text: str, floor: str) -> None:
        """A frame."""
        self._floor = floor
        self._words(time_s, "agent", agent_text)
        self._words(time_s, "caller", caller_text)

    def happened(self, event: Event) -> None:
        """A call, its result, or a hand-off; that one begins is not worth a line."""
        if event.kind == "opened":
            return
        body = json.dumps(dict(event.arguments), ensure_ascii=False) if event.arguments else ""
        sure = f"({event.confidence:.2f})" if event.confidence is not None else ""
        what = "result of" if event.kind == "result" else event.action
        self._begin(event.time_s, "tool", f"{what} {event.tool} {body} {sure}".rstrip())
        self._who = ""

    def end(self) -> None:
        """The call is over."""
        self._out.write("\n\n")
        self._out.flush()

    def _words(self, time_s: float, who: str, text: str) -> None:
        if not text:
            return
        if who != self._who and text.strip():
            self._begin(time_s, who, text.strip())
            self._who = who
        elif who == self._who:
            self._out.write(text)
        self._out.flush()

    def _begin(self, time_s: float, who: str, text: str) -> None:
        colour, plain = ("", "")
        if self._out.isatty():
            colour, plain = f"\033[{_COLOURS[who]}m", "\033[0m"
        floor = f"floor: {self._floor}"
        self._out.write(f"\n{time_s:6.2f} s  {floor:25}{colour}{who:8}{plain}{text}")
        self._out.flush()
