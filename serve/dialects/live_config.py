"""What a session of OpenAI's Live protocol is set to, as clients send it.

Modelled after the types of OpenAI's SDKs. Fields that mean nothing to us are ignored, as are tools
that only OpenAI can run (web search and the like): `session.started` says which there are.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serve.dialects.reading import Format, Function, Id, Text
from serve.dialects.server_tools import AllowedTools, McpTools, RequireApproval
from serve.gateway.events import ServerTools

_Name = Annotated[str, Meta(max_length=256)]


class _CustomVoice(msgspec.Struct, frozen=True):
    id: _Name


class _Output(msgspec.Struct, frozen=True):
    voice: _Name | _CustomVoice | None = None


class _AudioConfig(msgspec.Struct, frozen=True):
    format: Format | None = None
    output: _Output | None = None


class _Tool(Function, kw_only=True):
    """Of any type, since others than these two are left out: a function, or tools of the server's
    (`mcp`)."""

    type: _Name
    name: _Name = ""
    server_label: Id = ""
    allowed_tools: AllowedTools = None
    require_approval: RequireApproval = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.type == "function" and not self.name:
            raise ValueError("a function needs a name")
        if self.type == "mcp" and not self.server_label:
            raise ValueError("a tool of type mcp needs a server_label")

    def as_server_tools(self) -> ServerTools:
        """Tools of the server's, as the gateway has them."""
        asked = McpTools(self.server_label, self.allowed_tools, self.require_approval)
        return asked.as_server_tools()


class ClientDelegation(msgspec.Struct, tag_field="type", tag="client", frozen=True):
    """Work is delegated to the client, which is not told what work."""


class ResponsesConfig(msgspec.Struct, frozen=True):
    """What a delegate is told and may call."""

    instructions: Text | None = None
    tools: Annotated[list[_Tool], Meta(max_length=128)] | None = None
    tool_choice: Any = None

    @property
    def functions(self) -> tuple[dict[str, Any], ...]:
        """The tools that the client runs."""
        tools = self.tools or ()
        return tuple(tool.as_setting() for tool in tools if tool.type == "function")

    @property
    def server_tools(self) -> tuple[ServerTools, ...] | Literal["all"]:
        """The tools that this server runs."""
        tools = self.tools or ()
        return tuple(tool.as_server_tools() for tool in tools if tool.type == "mcp") or "all"


class ResponsesDelegation(msgspec.Struct, tag_field="type", tag="responses", frozen=True):
    """Work is delegated to a model of the server's, whose functions the client runs."""

    responses: ResponsesConfig | None = None


class TextPart(msgspec.Struct, frozen=True):
    """A piece of a message in writing."""

    text: Text = ""


class _InitialItem(msgspec.Struct, frozen=True):
    role: Literal["developer", "user", "assistant"]
    content: Annotated[list[TextPart], Meta(max_length=16)]


class _ServerEventSelector(msgspec.Struct, frozen=True):
    type: _Name
    response_event: _Name | None = None


class DataChannel(msgspec.Struct, frozen=True):
    """What a browser may send and be told over a data channel; None is all."""

    allowed_client_events: Literal["all"] | Annotated[list[_Name], Meta(max_length=64)] | None = (
        None
    )
    allowed_server_events: (
        Literal["all"] | Annotated[list[_ServerEventSelector], Meta(max_length=64)] | None
    ) = None

    def may_send(self, kind: str) -> bool:
        """Whether the client may send a message of that type."""
        allowed = self.allowed_client_events
        return allowed is None or allowed == "all" or kind in allowed

    def may_see(self, event: dict[str, Any]) -> bool:
        """Whether the client may be told of a server's event."""
        allowed = self.allowed_server_events
        if allowed is None or allowed == "all":
            return True
        nested = event["event"]["type"] if event["type"] == "response.event" else None
        return _ServerEventSelector(type=event["type"], response_event=nested) in allowed


class _ClientConfig(msgspec.Struct, frozen=True):
    data_channel: DataChannel


class SessionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set otherwise while a session goes on."""

    delegation: ClientDelegation | ResponsesDelegation | None = None

    @property
    def responses(self) -> ResponsesConfig | None:
        """What the agent is told and may call as its own delegate, None where it is not that."""
        if isinstance(self.delegation, ResponsesDelegation):
            return self.delegation.responses or ResponsesConfig()
        return None


class SessionConfig(SessionChange, frozen=True):
    """All that a session begins with."""

    model: _Name
    instructions: Text | None = None
    audio: _AudioConfig | None = None
    input: Annotated[list[_InitialItem], Meta(max_length=128)] | None = None
    client: _ClientConfig | None = None

    @property
    def voice(self) -> str | None:
        """The voice's name, None where the client has no wish."""
        voice = self.audio.output.voice if self.audio and self.audio.output else None
        return voice.id if isinstance(voice, _CustomVoice) else voice

    @property
    def role(self) -> str | None:
        """The instructions of the agent and of its delegate, and what was said before, as one
        text; None where there is nothing of these."""
        said = [
            f"{item.role}: {' '.join(part.text for part in item.content)}"
            for item in self.input or ()
        ]
        history = "\n".join(["What was said before this call:", *said]) if said else None
        delegate = self.responses and self.responses.instructions
        parts = [self.instructions, delegate, history]
        return "\n\n".join(part for part in parts if part) or None
