"""What a Realtime session is set to, as its client reads it."""

from typing import Any

import msgspec
from msgspec import UNSET

from serve.dialects.reading import FORMATS, Format
from serve.dialects.realtime_events import (
    AudioChange,
    ClientError,
    FunctionTool,
    McpTool,
    OutputChange,
    SessionChange,
    VoiceId,
)
from serve.dialects.server_tools import told_back
from serve.gateway.audio import AudioFormat
from serve.gateway.events import Configure, Settings

# The agent hears turns by their meaning and is always interrupted, whatever is asked for.
_ALWAYS = {"create_response": True, "interrupt_response": True}

_TOLD_BACK = (
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "tracing",
    "truncation",
    "reasoning",
    "prompt",
    "include",
)


class SessionConfig:
    """The session's settings, and what its client has set that does nothing here."""

    def __init__(self, model: str) -> None:
        self.settings = Settings()
        self._model = model
        self._told_back: dict[str, Any] = {"tool_choice": "auto", "max_output_tokens": "inf"}
        self._input: dict[str, Any] = {
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": {"type": "semantic_vad", "eagerness": "auto", **_ALWAYS},
        }
        self._output: dict[str, Any] = {"speed": 1.0}

    @property
    def has_turn_detection(self) -> bool:
        """Whether the client wants to be told when the caller begins and ends, and to have his
        turns committed for it."""
        return self._input["turn_detection"] is not None

    def change(self, change: SessionChange, has_heard: bool) -> Configure:
        """Notes what the client wants and says what the session has to do about it. ClientError if
        it can't be, and nothing is changed then."""
        if change.output_modalities and "audio" not in change.output_modalities:
            raise ClientError(
                "unsupported_value", "The agent always speaks.", "session.output_modalities"
            )
        configure = self._configure(change)
        if has_heard and (configure.input_format or configure.output_format):
            raise ClientError(
                "session_format_locked", "Formats can't change after audio.", "session.audio"
            )
        for name in _TOLD_BACK:
            if (value := getattr(change, name)) is not UNSET:
                self._told_back[name] = value
        self._note(change.audio or AudioChange())
        return configure

    def described(self, session_id: str) -> dict[str, Any]:
        """The session as its client reads it."""
        settings = self.settings
        heard = {"format": _format(settings.input_format), **self._input}
        said = {"format": _format(settings.output_format), "voice": settings.voice, **self._output}
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": self._model,
            "output_modalities": ["audio"],
            "instructions": settings.instructions,
            "tools": told_back(settings),
            "audio": {"input": heard, "output": said},
            **self._told_back,
        }

    def _configure(self, change: SessionChange) -> Configure:
        audio = change.audio or AudioChange()
        heard, said = audio.input, audio.output
        tools = None if change.tools is UNSET else change.tools or []
        own = [tool.as_setting() for tool in tools or [] if isinstance(tool, FunctionTool)]
        servers = [tool.as_server_tools() for tool in tools or [] if isinstance(tool, McpTool)]
        return Configure(
            instructions=None if change.instructions is UNSET else change.instructions or "",
            tools=None if tools is None else tuple(own),
            server_tools=None if tools is None else tuple(servers) or "all",
            voice=_voice(said),
            input_format=_changed(heard.format if heard else UNSET, self.settings.input_format),
            output_format=_changed(said.format if said else UNSET, self.settings.output_format),
        )

    def _note(self, audio: AudioChange) -> None:
        if audio.input:
            told = msgspec.to_builtins(audio.input)
            told.pop("format", None)
            self._input |= told
            turn_detection = self._input["turn_detection"]
            if turn_detection is not None:
                self._input["turn_detection"] = turn_detection | _ALWAYS
        if audio.output:
            told = msgspec.to_builtins(audio.output)
            self._output |= {name: told[name] for name in ("speed",) if name in told}


def _voice(said: OutputChange | None) -> str | None:
    """The voice that is wanted, if one is."""
    voice = said.voice if said else None
    if isinstance(voice, VoiceId):
        return voice.id
    return voice if isinstance(voice, str) else None


def _changed(wanted: Any, now: AudioFormat) -> AudioFormat | None:
    """The format that is wanted, unless it is there already. UNSET and None want nothing."""
    if not isinstance(wanted, Format):
        return None
    format = wanted.as_audio_format()
    return None if format == now else format


def _format(format: AudioFormat) -> dict[str, Any]:
    """As OpenAI writes it: only PCM has a rate."""
    rate = {"rate": format.rate_hz} if format.encoding == "pcm16" else {}
    return {"type": FORMATS[format.encoding], **rate}
