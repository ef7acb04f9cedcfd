"""A batch of packed dialogues as what goes into the temporal transformer, one position later.

The engine does the same step by step: what was made at a position goes in at the next one that
takes it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.duplex import FRAME, PADDING, DuplexConfig, Inputs
from model.frame import USERS, USERS_BACKCHANNEL
from train.packing import DialogueBatch


def inputs_of(batch: DialogueBatch, config: DuplexConfig, pad: int, idle: int, end: int) -> Inputs:
    """Teacher-forced inputs; `pad`, `idle` and `end` are the tokens of that name."""
    is_frame = batch.kind == FRAME
    frame_before = newest_before(is_frame, batch.segment)  # [B, L], -1: none
    action, is_new = _action_inputs(batch, idle, end)
    speaking = (batch.floor == USERS) | (batch.floor == USERS_BACKCHANNEL)
    agent_codes, user_codes = batch.agent_codes, batch.user_codes
    if config.arrangement == "joint":
        agent_codes, user_codes = (
            _at(delayed_codes(codes, frame_before, config), frame_before, config.codebook)
            for codes in (agent_codes, user_codes)
        )
    return Inputs(
        kind=batch.kind,
        action=action,
        is_new=is_new,
        agent_text=_taken(batch.agent_text, frame_before, is_frame, pad),
        user_text=_taken(batch.user_text, frame_before, is_frame, pad),
        latents=batch.user_latents,
        is_heard=batch.heard,
        is_speaking=speaking,
        agent_codes=agent_codes,
        user_codes=user_codes,
    )


def delayed_codes(codes: Tensor, frame_before: Tensor, config: DuplexConfig) -> Tensor:
    """Codes [B, L, K] as the acoustic delay places them, which is what a joint model is to predict.

    `frame_before` int64 [B, L] is the index of each position's frame before it, -1 where none is:
    there stands `codebook`.
    """
    late, index = codes, frame_before
    for _ in range(config.acoustic_delay):
        late = _at(codes, index, config.codebook)
        index = _at(frame_before, index, -1)
    return torch.cat([codes[..., :1], late[..., 1:]], dim=-1)


def _action_inputs(batch: DialogueBatch, idle: int, end: int) -> tuple[Tensor, Tensor]:
    """The newest token of an open burst, and whether it came at the position before."""
    is_token = (batch.action != idle) & (batch.kind != PADDING)
    newest = newest_before(is_token, batch.segment)
    action = _at(batch.action, newest, idle)
    index = torch.arange(newest.shape[1], device=newest.device)
    is_new = (newest == index - 1) & (newest >= 0)
    return torch.where((action == end) & ~is_new, idle, action), is_new


def newest_before(is_one: Tensor, segment: Tensor) -> Tensor:
    """Index of the newest position before each where `is_one`, in its dialogue [B, L]; -1: none."""
    index = torch.arange(is_one.shape[1], device=is_one.device)
    newest = torch.where(is_one, index, -1).cummax(dim=1).values
    newest = F.pad(newest[:, :-1], (1, 0), value=-1)
    return torch.where(_at(segment, newest, -1) == segment, newest, -1)


def _at(values: Tensor, index: Tensor, nothing: int) -> Tensor:
    """values [B, L, ...] at index [B, L], `nothing` where that is negative."""
    place = index.clamp(min=0)
    place = place.view(*place.shape, *[1] * (values.dim() - 2)).expand(values.shape)
    missing = (index < 0).view(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, place).masked_fill(missing, nothing)


def _taken(values: Tensor, frame_before: Tensor, is_frame: Tensor, nothing: int) -> Tensor:
    return _at(values, frame_before, nothing).masked_fill(~is_frame, nothing)
