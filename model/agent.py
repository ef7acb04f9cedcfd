"""The agent frame by frame, as a server runs it: hears 80 ms of every caller, speaks, acts.

    pcm -> codec -> temporal transformer -> agent text -> speech transformer -> codec -> pcm
                                         -> actions, at positions of their own between two frames

Rows are callers. What is to be given to one of them (role, tools, results) goes in by one prefill.
Weights of what is heard and decided are never rounded (`model.ops.use_kernels`), keys and values
may be: in 8 bits nearly the same is said and called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.action_session import ActionEvent, ActionSession, SavedActions
from model.agent_state import AgentState
from model.checkpoint import Duplex
from model.duplex import ACTION, FRAME, Inputs, Outputs
from model.frame import AGENTS, USERS
from model.grammar import ActionGrammar
from model.ops import unrounded
from model.sampling import Sampler, SamplingConfig, sample, uniforms
from model.snapshot import Saved, load, save
from model.streaming import keep
from model.tokens import END, IDLE, PAD, SPECIAL_TOKENS, STYLES, serialize, serialize_context

_SURE_FRAMES = 3  # that somebody holds the floor
_AGENT_TEXT, _ACTION, _CODES = 0, 1, 2  # streams of random numbers; codebook k has _CODES + k


@dataclass(frozen=True)
class AgentConfig:
    """How each stream is drawn; of the agent's text, the words alone (see `_draw_text`).

    `least_declared`: where the declared tools together are less likely than this once a call is
    open, another one is meant, and the call is not made.
    """

    agent_text: SamplingConfig = field(default_factory=SamplingConfig)
    action: SamplingConfig = field(default_factory=SamplingConfig)
    codes: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.3))
    least_declared: float = 0.5

    def __post_init__(self) -> None:
        assert 0 <= self.least_declared <= 1, (
            f"least_declared {self.least_declared}: must be in 0..1"
        )


class AgentFrame(NamedTuple):
    """What a frame brought: `pcm` float32 [B, 1920], to be heard during the next one; tokens and
    floor int64 [B]; what happened on the action channel."""

    pcm: Tensor
    agent_text: Tensor
    user_text: Tensor
    floor: Tensor
    events: list[ActionEvent]


class SavedCaller(NamedTuple):
    """What `Agent.load` takes."""

    row: Saved
    actions: SavedActions


class Agent:
    """A split checkpoint at work. Raises ValueError on one of another arrangement."""

    def __init__(self, duplex: Duplex, config: AgentConfig | None = None) -> None:
        if duplex.speech is None:
            raise ValueError("arrangement is joint: must be split, with a speech transformer")
        self.duplex, self.config = duplex, config or AgentConfig()
        self.model, self.speech = duplex.model, duplex.speech
        self.codec, self.tokenizer = duplex.codec, duplex.tokenizer
        self.sessions: dict[int, ActionSession] = {}
        self._pad, self._idle, self._end = map(self.tokenizer.id_of, (PAD, IDLE, END))
        never = {*SPECIAL_TOKENS} - {PAD, *(f"<{style}>" for style in STYLES)}
        self._unspeakable = torch.zeros(duplex.model.config.vocabulary, dtype=torch.bool)
        self._unspeakable[[self.tokenizer.id_of(token) for token in never]] = True
        self._unspeakable[len(self.tokenizer) :] = True

    def init_state(self, batch: int) -> AgentState:
        """For `batch` callers, each of whom is to be begun."""
        duplex, speech = self.model.init_state(batch), self.speech.init_state(batch)
        return AgentState.fresh(self.codec.init_state(batch), duplex, speech)

    @torch.inference_mode()
    def begin(
        self,
        state: AgentState,
        row: int,
        system: str,
        tools: Sequence[Mapping[str, Any]],
        seed: int = 0,
    ) -> None:
        """A new caller in a row of all, with his agent's role and tools, which go in before his
        first frame.

        Raises ValueError on tools that can't be decoded, as `ActionGrammar` does.
        """
        grammar = ActionGrammar(self.tokenizer, tools)
        self.sessions[row] = ActionSession(row, self.tokenizer, grammar)
        view = state.row(row)
        view.reset(torch.ones(1, dtype=torch.bool))
        view.agent_text.fill_(self._pad)
        view.user_text.fill_(self._pad)
        view.action.fill_(self._idle)
        view.seed.fill_(seed)
        view.slot.fill_(row)
        self._wait(row, *serialize_context(system, tools, self.duplex.config.describe_tools))

    def give(self, state: AgentState, row: int, number: int, result: Mapping[str, Any]) -> None:
        """The result of call `number`; goes in before the next frame that no burst is open at.

        Raises ValueError where the row has made no such call.
        """
        session = self.sessions[row]
        if not 0 < number <= session.calls:
            raise ValueError(f"number {number}: row {row} has made calls 1 to {session.calls}")
        self._wait(row, serialize("result", number, "", result))

    def tell(
        self,
        state: AgentState,
        row: int,
        system: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Something more of a row's role, and (None: as they were) other tools; goes in as a result
        does. No action may be open.

        Raises ValueError on tools that can't be decoded, as `ActionGrammar` does.
        """
        if tools is not None:
            self.sessions[row].use(ActionGrammar(self.tokenizer, tools))
        self._wait(row, *serialize_context(system, tools or (), self.duplex.config.describe_tools))

    def save(self, state: AgentState, row: int, known: Sequence[int] = ()) -> SavedCaller:
        """A caller between two positions; `known` as in `model.snapshot.save`."""
        return SavedCaller(save(state.row(row), known), self.sessions[row].save())

    @torch.inference_mode()
    def load(
        self,
        state: AgentState,
        row: int,
        tools: Sequence[Mapping[str, Any]],
        saved: Sequence[SavedCaller],
        seed: int | None = None,
    ) -> None:
        """Goes on in any row with a caller who was saved: first whole, then what came since. With a
        `seed` he is another one, who has all in common with him so far.

        Raises ValueError as `begin` does, and where he was saved from another model.
        """
        session = ActionSession(row, self.tokenizer, ActionGrammar(self.tokenizer, tools))
        view = state.row(row)
        view.reset(torch.ones(1, dtype=torch.bool))
        for part in saved:
            load(view, part.row)
        session.load(saved[-1].actions)
        view.slot.fill_(row)
        if seed is not None:
            view.seed.fill_(seed)
        self.sessions[row] = session

    @torch.inference_mode()
    def prefill(self, state: AgentState, row: int, most: int | None = None) -> None:
        """Takes in, in one run, what is forced in a row's action, or else, unless that is open,
        `most` (None: all) of the tokens of what waits longest."""
        session = self._session(state, row)
        if not session.is_waiting:
            return
        run = session.forced or session.waiting[0]
        view, active = state.row(row), torch.ones(1, dtype=torch.bool)
        newest = torch.tensor([run if session.forced else run[:most]])  # [1, T]
        del run[: newest.shape[1]]
        session.waiting = [run for run in session.waiting if run]
        action = torch.cat([view.action[:, None], newest[:, :-1]], dim=1)
        is_new = torch.cat([view.is_new[:, None], torch.ones_like(newest[:, 1:]).bool()], dim=1)
        self._run(view, self._inputs(ACTION, action, is_new), active)
        self._put(view, newest[:, -1], active)

    @torch.inference_mode()
    def step(self, state: AgentState, pcm: Tensor, active: Tensor | None = None) -> AgentFrame:
        """One frame of the callers, pcm float32 [B, 1920] in -1..1, and all of the actions that
        open at it; others keep their state."""
        if active is None:
            active = torch.ones(len(pcm), dtype=torch.bool)
        frame = self.hear(state, pcm, active)
        while (acting := self.acting(state, active)).any():
            frame.events.extend(self.act(state, acting))
        return frame

    @torch.inference_mode()
    def hear(self, state: AgentState, pcm: Tensor, active: Tensor) -> AgentFrame:
        """A frame position of the active rows (bool [B]): pcm float32 [B, 1920] in -1..1. Actions
        open at it, and go on where `act` is called."""
        rows = active.nonzero()[:, 0].tolist()
        self._take_in(state, rows)
        some = active if len(rows) < len(active) else None  # of all, nothing need be kept
        with unrounded():
            latents = self.codec.hear(pcm, state.codec, some)
        outputs = self._frame(state, latents, some)
        text = self._draw_text(state, outputs)
        user_text = self.model.log_probabilities(outputs, "user_text")[:, 0]
        user_text = user_text.masked_fill(self._unspeakable, -torch.inf).argmax(dim=-1)
        with unrounded():
            floor = self.model.floor(outputs.hidden)[:, 0].argmax(dim=-1)
        events = self._take(state, outputs, active & ~self.acting(state, active))
        self._yield(state, floor, active)
        codes = self.speech.step(text, state.speech, self._code_sampler(state), some)
        said = self.codec.decode(codes, state.codec, some)
        keep(state.agent_text, text, active)
        keep(state.user_text, user_text, active)
        keep(state.floor, floor, active)
        return AgentFrame(said, text, user_text, floor, events)

    @torch.inference_mode()
    def act(self, state: AgentState, active: Tensor) -> list[ActionEvent]:
        """An action position of the active rows (bool [B]), each of which has an open action, and
        before it those of what was forced."""
        self._take_in(state, active.nonzero()[:, 0].tolist())
        inputs = self._inputs(ACTION, state.action[:, None], state.is_new[:, None])
        return self._take(state, self._run(state, inputs, active), active)

    def acting(self, state: AgentState, active: Tensor) -> Tensor:
        """Those of the active rows that have an open action: bool [B]."""
        sessions = self._sessions(state)
        rows = enumerate(active.tolist())
        return torch.tensor([bool(is_active and sessions[row].is_open) for row, is_active in rows])

    def _wait(self, row: int, *texts: str) -> None:
        """What a row is given together."""
        run = [token for text in texts for token in self.tokenizer.encode_action(text)]
        self.sessions[row].waiting += [run] if run else []

    def _session(self, state: AgentState, row: int) -> ActionSession:
        return self.sessions[int(state.slot[row])]

    def _sessions(self, state: AgentState) -> dict[int, ActionSession]:
        """Of all rows that have one."""
        slots = enumerate(state.slot.tolist())
        return {row: self.sessions[slot] for row, slot in slots if slot in self.sessions}

    def _take_in(self, state: AgentState, rows: list[int]) -> None:
        """All that waits in these rows."""
        sessions = self._sessions(state)
        for row in rows:
            while sessions[row].is_waiting:
                self.prefill(state, row)

    def _frame(self, state: AgentState, latents: Tensor, active: Tensor | None) -> Outputs:
        """A frame position of the active rows, with all that the last one made."""
        text = (state.agent_text[:, None], state.user_text[:, None])
        inputs = self._inputs(FRAME, state.action[:, None], state.is_new[:, None], text, latents)
        return self._run(state, inputs, active)

    def _inputs(
        self,
        kind: int,
        action: Tensor,
        is_new: Tensor,
        text: tuple[Tensor, Tensor] | None = None,
        latents: Tensor | None = None,
    ) -> Inputs:
        blank = torch.zeros_like(action)  # [B, T]
        if text is None:
            text = (blank + self._pad, blank + self._pad)
        if latents is None:
            latents = torch.zeros(len(action), self.model.config.latent_dim)
        return Inputs(
            kind=blank + kind,
            action=action,
            is_new=is_new,
            agent_text=text[0],
            user_text=text[1],
            latents=latents[:, None].expand(-1, action.shape[1], -1),
            is_heard=blank + kind == FRAME,
            is_speaking=blank.bool(),
            agent_codes=blank[..., None][..., :0],
            user_codes=blank[..., None][..., :0],
        )

    def _run(self, state: AgentState, inputs: Inputs, active: Tensor | None) -> Outputs:
        """Runs the active rows over positions; `<end>` has gone in and goes in no more."""
        with unrounded():
            outputs = self.model(inputs, state.duplex, active)
        count = inputs.kind.shape[1]
        state.positions += count if active is None else active * count
        done = torch.where(state.action == self._end, self._idle, state.action)
        keep(state.action, done, active)
        keep(state.is_new, torch.zeros_like(state.is_new), active)
        return outputs

    def _put(self, state: AgentState, token: Tensor, active: Tensor) -> None:
        """What goes in at the next position: token [B], the newest of a burst."""
        keep(state.action, token, active)
        keep(state.is_new, torch.ones_like(state.is_new), active)

    def _draw_text(self, state: AgentState, outputs: Outputs) -> Tensor:
        """Nothing, where that is likelier than all words together: a turn may begin with many, and
        `<pad>` beats each of them long after it was time to speak."""
        logits = self.model.log_probabilities(outputs, "agent_text")[:, 0]
        logits = logits.masked_fill(self._unspeakable, -torch.inf)
        is_nothing = logits.softmax(dim=-1)[:, self._pad] >= 0.5
        logits[:, self._pad] = -torch.inf
        word = self._drawn(logits, self.config.agent_text, state, _AGENT_TEXT)
        return torch.where(is_nothing, self._pad, word)

    def _drawn(
        self, logits: Tensor, config: SamplingConfig, state: AgentState, stream: int
    ) -> Tensor:
        """float32 [B, V] -> int64 [B]; random numbers are made where any are needed."""
        if config.temperature == 0:
            return logits.argmax(dim=-1)
        return sample(logits, config, uniforms(state.seed, state.positions, stream))

    def _code_sampler(self, state: AgentState) -> Sampler:
        streams = torch.arange(self.speech.config.depth.steps) + _CODES
        uniform = uniforms(state.seed[:, None], state.positions[:, None], streams)  # [B, K]
        return Sampler(self.config.codes, uniform)

    def _take(self, state: AgentState, outputs: Outputs, active: Tensor) -> list[ActionEvent]:
        """The next token of the active rows' actions, or one that opens an action."""
        rows = active.nonzero()[:, 0].tolist()
        if not rows:
            return []
        tokens, probabilities = self._draw_actions(state, outputs, rows)
        drawn = tokens != self._idle
        self._put(state, tokens, drawn)
        events = []
        for row in drawn.nonzero()[:, 0].tolist():
            session, token, sure = self._session(state, row), tokens[row], float(probabilities[row])
            if token == self._end and session.matcher.is_naming:
                events.append(session.undeclared(sure))
            else:
                events += session.take(int(token), sure)
        return events

    def _draw_actions(
        self, state: AgentState, outputs: Outputs, rows: list[int]
    ) -> tuple[Tensor, Tensor]:
        """The next token of these rows' action channels, `<idle>` in others, and how likely each
        was before the mask: int64, float32 [B]. `<end>` in a tool's place: none of those declared
        is meant."""
        logits = self.model.log_probabilities(outputs, "action")[:, 0]  # [B, V]
        mask, sessions = torch.zeros(logits.shape, dtype=torch.bool), self._sessions(state)
        allowed = torch.stack([sessions[row].allowed() for row in rows])
        mask[rows, : len(self.tokenizer)] = allowed
        mask[:, self._idle] = ~mask.any(dim=-1)
        mask[[row for row in rows if not sessions[row].is_open], self._idle] = True
        allowed = logits.masked_fill(~mask, -torch.inf)
        tokens = self._drawn(allowed, self.config.action, state, _ACTION)
        sure = logits.gather(1, tokens[:, None])[:, 0].exp()
        for row in rows:
            if sessions[row].matcher.is_naming:
                declared = float(allowed[row].exp().sum())
                if declared < self.config.least_declared:
                    tokens[row], sure[row] = self._end, 1 - declared
        return tokens, sure

    def _yield(self, state: AgentState, floor: Tensor, active: Tensor) -> None:
        """Who is spoken over falls silent: what was still to be said is dropped. A cough or a word
        to somebody else looks like a turn at first, so it takes some frames to be sure."""
        frames = torch.where(floor == state.floor, state.floor_frames + 1, 1)  # [B]
        is_sure = frames >= _SURE_FRAMES
        taken = is_sure & (floor == USERS) & (state.holder == AGENTS) & active
        self.speech.hush(state.speech, taken)
        keep(state.floor_frames, frames, active)
        keep(state.holder, floor, active & is_sure)
