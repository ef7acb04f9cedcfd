"""What a gateway keeps of a session, so that another engine can go on with it."""

import msgspec

from serve.engine.messages import Frame, Open, Result, Resume, Saved, Tell


class Remembered:
    """The newest state that the engine has told, and all that was said since: some seconds."""

    def __init__(self, opened: Open) -> None:
        self._open = opened
        self._states: list[bytes] = []
        self._frames: list[Frame] = []
        self._told: list[Result | Tell] = []
        self._tools = opened.tools  # those that the states have
        self._number, self._taken = -1, 0  # frames, and what was told, that the states hold

    def said(self, command: Frame | Result | Tell) -> None:
        """A message that went to the engine. One that is no frame names the last one before it
        (`after`)."""
        if isinstance(command, Frame):
            self._frames.append(command)
        else:
            self._told.append(command)

    def told(self, saved: Saved) -> None:
        """What the engine has saved. Where one is missing, the next whole one counts."""
        if saved.since == -1:
            self._states.clear()
        elif saved.since != self._number:
            return
        self._states.append(saved.state)
        self._number = saved.number
        self._frames = [frame for frame in self._frames if frame.number > saved.number]
        count = saved.taken - self._taken
        for command in self._told[:count]:
            if isinstance(command, Tell) and command.tools is not None:
                self._tools = command.tools
        del self._told[:count]
        self._taken = saved.taken

    def again(self) -> list[Open | Resume | Result | Tell | Frame]:
        """What another engine is to be told, a few frames at a time: it has the same to say. That
        they were sent before is not its fault."""
        opening = self._open
        if self._states:
            states = [*self._states]
            opening = Resume(opening.session, self._tools, states, opening.traceparent)
        frames = (msgspec.structs.replace(frame, sent_s=0.0) for frame in self._frames)
        return [opening, *self._told, *frames]
