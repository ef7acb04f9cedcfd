"""The frame loop of the joint arrangement, with the delays of Moshi (arXiv 2410.00037).

What goes in at a frame is a column of tokens: the text and the codes that the model made at the
frame before, and the caller's codes. Codebooks after the first stand one column behind their frame,
on both sides: what is made at a frame is the agent's first code of the next one and the others of
this one. A row's first column has no frame, since nothing was made before it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.duplex import FRAME, DuplexModel, DuplexState, Inputs
from model.streaming import State, keep

# Tokens int64 [B] from logits float32 [B, V] of a stream: 0 is the text, k the codebook k - 1.
Pick = Callable[[Tensor, int], Tensor]

# PersonaPlex's prompt: Mimi's codes for the agent's silence and for the caller, the text token of a
# frame in which no word begins, and how many such frames follow voice and role.
SILENCE = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)
SINE = (430, 1268, 381, 1611, 1095, 1495, 56, 472)
PADDING = 3
QUIET_FRAMES = 6


class Given(NamedTuple):
    """Frames whose tokens are all given: `text` int64 [B, N], codes of both sides [B, N, K]."""

    text: Tensor
    agent_codes: Tensor
    user_codes: Tensor


class Spoken(NamedTuple):
    """`text` int64 [B] and `codes` int64 [B, K], the sound of the frame that came in.

    In a row's first frame there is none: its first code is the index `codebook`.
    """

    text: Tensor
    codes: Tensor


@dataclasses.dataclass
class JointState(State):
    """`columns` [B] counts what went in; `text` [B] and `codes` [B, K] are what the last one made,
    `heard` [B, K] the caller's codes that came with it. All int64."""

    duplex: DuplexState
    columns: Tensor
    text: Tensor
    codes: Tensor
    heard: Tensor


class JointLoop:
    """Runs a model frame by frame, or over a prompt at once, and picks tokens.

    Depth steps that predict the caller's codes (PersonaPlex has them) never run.
    """

    def __init__(self, model: DuplexModel, pick: Pick) -> None:
        config = model.config
        if config.arrangement != "joint" or config.tied or config.acoustic_delay != 1:
            raise ValueError("model must be joint, with tied false and an acoustic_delay of 1")
        self.model, self.pick, self.codebooks = model, pick, config.codebooks

    def init_state(self, batch: int) -> JointState:
        """A fresh state for `batch` rows."""
        duplex = self.model.init_state(batch)
        columns = next(duplex.tensors()).new_zeros(batch, dtype=torch.int64)
        codes = columns[:, None].repeat(1, self.codebooks)
        return JointState(duplex, columns, columns.clone(), codes, codes.clone())

    @torch.no_grad()
    def step(self, user_codes: Tensor, state: JointState, active: Tensor | None = None) -> Spoken:
        """One frame of the caller, int64 [B, K] (-1: there is none)."""
        user = _behind(user_codes[:, None], state.heard)
        columns = self._from_the_start(
            Given(state.text[:, None], state.codes[:, None], user), state.columns
        )
        first = columns.agent_codes[:, 0, :1]
        made = self._run(columns, state, active, None)
        _remember(state, made, user_codes, 1, active)
        return Spoken(made.text, torch.cat([first, made.codes[:, 1:]], dim=1))

    @torch.no_grad()
    def prefill(self, given: Given, state: JointState, active: Tensor | None = None) -> None:
        """A prompt of any number of frames, all at once; the model goes on behind it.

        The last frame's codes after the first are still due, so the first code of what follows is
        the only one that is picked here.
        """
        agent = _behind(given.agent_codes, state.codes)
        user = _behind(given.user_codes, state.heard)
        columns = self._from_the_start(Given(given.text, agent, user), state.columns)
        made = self._run(columns, state, active, given.agent_codes[:, -1])
        _remember(state, made, given.user_codes[:, -1], given.text.shape[1], active)

    def _from_the_start(self, columns: Given, before: Tensor) -> Given:
        """Puts the tokens of no frame where a row's frames begin; `before` [B] columns went in."""
        config = self.model.config
        count = torch.arange(columns.text.shape[1], device=before.device)
        column = before[:, None] + count  # [B, N]
        behind = torch.arange(self.codebooks, device=before.device).clamp(max=1)  # [K]
        is_none = column[..., None] <= behind  # [B, N, K]
        return Given(
            columns.text.masked_fill(column == 0, config.vocabulary),
            columns.agent_codes.masked_fill(is_none, config.codebook),
            columns.user_codes.masked_fill(is_none, config.codebook),
        )

    def _run(
        self, columns: Given, state: JointState, active: Tensor | None, due: Tensor | None
    ) -> Spoken:
        """What the model makes at the last column; codes after the first are what is `due`."""
        outputs = self.model(inputs_of(columns), state.duplex, active)
        hidden = outputs.hidden[:, -1]  # [B, dim]
        picked = self.pick(self.model.logits(hidden, "agent_text"), 0)

        def pick_code(logits: Tensor, step: int) -> Tensor:
            return self.pick(logits, step + 1) if due is None or step == 0 else due[:, step]

        codes = self.model.depth.generate(hidden, pick_code, picked, self.codebooks)
        return Spoken(picked, codes)


def inputs_of(columns: Given) -> Inputs:
    """What goes into the model at columns [B, N]: their tokens as they stand, delays included."""
    text, agent, user = columns
    none, nobody = torch.zeros_like(text), torch.zeros_like(text, dtype=torch.bool)
    return Inputs(
        kind=torch.full_like(text, FRAME),
        action=none,
        is_new=nobody,
        agent_text=text,
        user_text=none,
        latents=text.new_zeros(*text.shape, 0),
        is_heard=nobody,
        is_speaking=nobody,
        agent_codes=agent,
        user_codes=user,
    )


def _behind(codes: Tensor, before: Tensor) -> Tensor:
    """Frames [B, N, K] as columns: codes after the first come one later, behind `before` [B, K]."""
    late = torch.cat([before[:, None, 1:], codes[:, :-1, 1:]], dim=1)
    return torch.cat([codes[..., :1], late], dim=2)


def _remember(
    state: JointState, made: Spoken, heard: Tensor, columns: int, active: Tensor | None
) -> None:
    keep(state.columns, state.columns + columns, active)
    keep(state.text, made.text, active)
    keep(state.codes, made.codes, active)
    keep(state.heard, heard, active)


def personaplex_prompt(voice: Tensor, role: Sequence[int]) -> Given:
    """Voice and role as PersonaPlex was trained to take them: one row [1, N].

    `voice` int64 [N, 8] are Mimi's codes of a sample of the voice, `role` the text tokens of
    `<system> ... <system>`, in Kyutai's vocabulary: one a frame, said in silence.
    """
    quiet = voice.new_tensor(SILENCE).expand(QUIET_FRAMES, -1)
    said = voice.new_tensor(SILENCE).expand(len(role), -1)
    agent = torch.cat([voice, quiet, said, quiet])  # [N, 8]
    text = voice.new_full([agent.shape[0]], PADDING)
    start = voice.shape[0] + QUIET_FRAMES
    text[start : start + len(role)] = voice.new_tensor(role)
    user = voice.new_tensor(SINE).expand_as(agent)
    return Given(text[None], agent[None], user[None])
