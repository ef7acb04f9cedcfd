"""Dialogues laid out as positions, packed into sequences of one length."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.positions import FRAME, Positions, cut


class DialogueBatch(NamedTuple):
    """Packed dialogues [B, L]; integers are int64, masks bool.

    `kind`: 0 padding, 1 a frame, 2 an action position. `segment` numbers a sequence's dialogues
    from 1 (0: padding), `position` counts from 0 in each. `action`, `agent_text` and `user_text`
    are tokens, `floor` is one of `data.dialogue.FLOORS`, codes are [B, L, K] and `user_latents`
    float32 [B, L, D], D = 0 where the shards hold none. What is no frame has `<pad>`, 0 in them.

    `heard`: there is sound in this frame; a dialogue without has zeros for codes and latents.
    `learn_action`: this position's `action` is to be predicted (frames and the model's own
    actions, not what it is given). `learn_frame`: so is its agent text; `learn_heard`: so are the
    codes, the floor and the user's text, which nothing but sound tells.
    One sequence is a DialogueBatch without the dimension B.
    """

    kind: Tensor
    segment: Tensor
    position: Tensor
    action: Tensor
    agent_text: Tensor
    user_text: Tensor
    floor: Tensor
    agent_codes: Tensor
    user_codes: Tensor
    user_latents: Tensor
    heard: Tensor
    learn_action: Tensor
    learn_frame: Tensor

    @property
    def learn_heard(self) -> Tensor:
        """Frames whose sound, or what is heard in it, is to be predicted."""
        return self.learn_frame & self.heard


def pack(dialogues: Iterable[Positions], length: int, pad: int) -> Iterator[DialogueBatch]:
    """Fills sequences of `length` positions in the order of the stream.

    A dialogue that does not fit what is left begins the next sequence; one that is longer than a
    sequence is cut at its end.
    """
    waiting: list[Positions] = []
    room = length
    for dialogue in dialogues:
        dialogue = cut(dialogue, length)
        if len(dialogue.kind) > room:
            yield _join(waiting, length, pad)
            waiting, room = [], length
        waiting.append(dialogue)
        room -= len(dialogue.kind)
    if waiting:
        yield _join(waiting, length, pad)


def _join(dialogues: Sequence[Positions], length: int, pad: int) -> DialogueBatch:
    sizes = [len(dialogue.kind) for dialogue in dialogues]

    def filled(parts: Iterable[np.ndarray], fill: int = 0) -> Tensor:
        joined = np.concatenate(list(parts))
        tail = np.full((length - len(joined), *joined.shape[1:]), fill, joined.dtype)
        return torch.from_numpy(np.concatenate([joined, tail]))

    fills = {"action": pad, "agent_text": pad, "user_text": pad}
    streams = {
        name: filled((getattr(dialogue, name) for dialogue in dialogues), fills.get(name, 0))
        for name in Positions._fields
        if name != "burst"
    }
    return DialogueBatch(
        segment=filled(np.full(size, number) for number, size in enumerate(sizes, 1)),
        position=filled(np.arange(size) for size in sizes),
        learn_frame=streams["kind"] == FRAME,
        **streams,
    )
