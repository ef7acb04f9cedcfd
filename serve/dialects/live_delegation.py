"""Work that an agent hands over to the client of OpenAI's Live protocol."""

from serve.dialects.live_events import (
    Append,
    CommentaryAppend,
    InstructionsAppend,
    ThinkingAppend,
)
from serve.gateway.events import Answer, Note, Settings

# The tool of an agent that delegates to its client. What is wanted is said nowhere in Live:
# applications find it in the transcripts.
DELEGATE = {
    "name": "delegate",
    "description": "Hands what the caller wants over to those who can look it up or do it.",
    "parameters": {"type": "object", "properties": {}},
}
DELEGATION = "delegation_"  # before a call's id
_WORDS = {  # what the agent is told of an append
    InstructionsAppend: "From now on: {}",
    ThinkingAppend: "To know, not to say: {}",
    CommentaryAppend: "Tell the caller, in your own words: {}",
}


def delegates_to_client(settings: Settings) -> bool:
    """Whether the agent hands work over to the client, instead of making calls of its own."""
    return settings.tools == (DELEGATE,)


def instruction_of(text: str) -> Note:
    """What the agent is told of an instruction that comes during the call."""
    return Note(_WORDS[InstructionsAppend].format(text))


class Delegations:
    """The calls that were handed over: the first commentary on one is what it has brought."""

    def __init__(self) -> None:
        self._open: set[str] = set()  # calls that wait for it
        self._recalled: set[str] = set()  # such calls that the caller wants no more

    def hand_over(self, call_id: str) -> None:
        """A call is the client's from now on."""
        self._open.add(call_id)

    def recall(self, call_id: str) -> None:
        """The caller wants a call no more: what comes of it is dropped."""
        if call_id in self._open:
            self._open.remove(call_id)
            self._recalled.add(call_id)

    def taken(self, message: Append) -> Answer | Note | None:
        """What the agent is to know of an append."""
        call_id = (message.delegation_id or "").removeprefix(DELEGATION)
        if isinstance(message, CommentaryAppend) and call_id in self._open:
            self._open.remove(call_id)
            return Answer(call_id, message.content)
        if call_id in self._recalled:
            return None
        return Note(_WORDS[type(message)].format(message.content))
