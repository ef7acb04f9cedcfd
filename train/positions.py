"""A tokenised dialogue as positions: its frames in time, actions and context between them.

Burst: the tokens of one action. What the model does opens at a frame (`<call>` in place of
`<idle>`) and goes on at action positions, between which frames come in at random; what it is given
stands whole between two frames.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.frame import FRAME_S
from model.tokens import IDLE, MADE, PAD, DialogueTokenizer, serialize, serialize_context
from train.text_streams import Row, Text, agent_texts, lay, user_texts, written

PADDING, FRAME, ACTION = 0, 1, 2  # kinds of positions
NO_BURST = -1


@dataclass(frozen=True)
class PositionsConfig:
    """Where text and actions stand against the sound, in frames of 80 ms.

    `split_probability` is that of one more frame before each token of a burst. With
    `plain_user_text` the user's words are small letters without punctuation; without
    `describe_tools` tools are given as their signatures alone (model.tokens.serialize_context).
    """

    text_lead_frames: int = 5
    user_text_delay_frames: int = 1
    action_delay_frames: int = 2
    split_probability: float = 0.1
    plain_user_text: bool = False
    describe_tools: bool = True

    def __post_init__(self) -> None:
        if min(self.text_lead_frames, self.user_text_delay_frames, self.action_delay_frames) < 0:
            raise ValueError("frames of lead and delay must be at least 0")
        if not 0 <= self.split_probability < 1:
            raise ValueError(f"split_probability {self.split_probability}: must be in 0..1, not 1")


class Positions(NamedTuple):
    """A dialogue position by position; `n` of them.

    `kind` is FRAME or ACTION. `action` holds every position's token of the action channel, the
    other streams hold `<pad>` or 0 at action positions. `heard` tells the frames whose sound there
    is. `burst` numbers the model's own bursts at their tokens, NO_BURST elsewhere. Integers are
    int64, `heard` and `learn_action` bool; all [n], codes [n, K], `user_latents` float32 [n, D],
    D = 0 where the shards have none.
    """

    kind: NDArray[np.int64]
    action: NDArray[np.int64]
    agent_text: NDArray[np.int64]
    user_text: NDArray[np.int64]
    floor: NDArray[np.int64]
    agent_codes: NDArray[np.int64]
    user_codes: NDArray[np.int64]
    user_latents: NDArray[np.float32]
    heard: NDArray[np.bool_]
    learn_action: NDArray[np.bool_]
    burst: NDArray[np.int64]


class _Burst(NamedTuple):
    """`frame` is the one that it opens at or, where it is given, comes after."""

    tokens: list[int]
    is_made: bool
    frame: int


class _Place(NamedTuple):
    kind: int
    action: int
    learn_action: bool
    burst: int = NO_BURST


def positions_of(
    row: Row,
    tokenizer: DialogueTokenizer,
    config: PositionsConfig,
    rng: np.random.Generator,
    heard: bool = True,
) -> Positions:
    """Lays a row out; `rng` only says how bursts are split. A row that is not `heard` is a text
    without sound.

    Text that is not done at the last frame is left out; no token of an action ever is. Raises
    ValueError naming the row where a stream is not one a frame.
    """
    frames = row["frames"]
    user = user_texts(row, tokenizer, config.user_text_delay_frames, config.plain_user_text)
    bursts = _schedule(row, user, tokenizer, config)
    acted = [burst.frame for burst in bursts]
    agent = agent_texts(row, tokenizer, config.text_lead_frames, user, acted, heard)
    tools = json.loads(row["tools"] or "[]")
    context = serialize_context(row["system"], tools, config.describe_tools)
    given = [token for text in context for token in tokenizer.encode_action(text)]
    places = [_Place(ACTION, token, False) for token in given]
    places += _channel(bursts, frames, tokenizer.id_of(IDLE), config.split_probability, rng)
    kind, action, learn_action, burst = (np.array(column) for column in zip(*places, strict=True))
    pad = tokenizer.id_of(PAD)
    return Positions(
        kind=kind,
        action=action,
        agent_text=_spread(lay(agent, frames, pad), kind, pad),
        user_text=_spread(lay(user, frames, pad), kind, pad),
        floor=_spread(_stream(row, "floor"), kind),
        agent_codes=_spread(_stream(row, "agent_codes"), kind),
        user_codes=_spread(_stream(row, "user_codes"), kind),
        user_latents=_spread(_latents(row), kind),
        heard=heard & (kind == FRAME),
        learn_action=learn_action,
        burst=burst,
    )


def cut(positions: Positions, length: int) -> Positions:
    """At most the first `length` positions; a call that this cuts through is not to be learned."""
    kept = Positions._make(values[:length] for values in positions)
    cut_through = np.isin(kept.burst, positions.burst[length:]) & (kept.burst != NO_BURST)
    return kept._replace(learn_action=kept.learn_action & ~cut_through)


def _schedule(
    row: Row, user: Sequence[Text], tokenizer: DialogueTokenizer, config: PositionsConfig
) -> list[_Burst]:
    """The actions in order, each at its frame: when it is due or, behind others, as soon as it can.

    What the model does also waits for the text of the words that it needs, to copy from it. Only
    one can open at a frame. One that finds no frame left has a frame beyond the last.
    """
    bursts: list[_Burst] = []
    for action in row["actions"]:
        is_made = action["kind"] in MADE
        due = int(action["time_s"] / FRAME_S)
        if is_made:
            due = max(due + config.action_delay_frames, written(row, user, action["time_s"]))
        text = serialize(
            action["kind"], action["number"], action["tool"], json.loads(action["arguments"])
        )
        free = bursts[-1].frame + is_made if bursts else 0
        frame = max(min(due, row["frames"] - 1), free)
        bursts.append(_Burst(tokenizer.encode_action(text), is_made, frame))
    return bursts


def _channel(
    bursts: list[_Burst],
    frames: int,
    idle: int,
    split_probability: float,
    rng: np.random.Generator,
) -> list[_Place]:
    """Every frame, and behind it the tokens that come before the next one."""
    places = [[_Place(FRAME, idle, True)] for _ in range(frames)]
    for number, burst in enumerate(bursts):
        if not burst.is_made or burst.frame >= frames:
            # A call that found no frame to open at: nothing to learn from.
            places[min(burst.frame, frames - 1)] += [
                _Place(ACTION, token, False) for token in burst.tokens
            ]
            continue
        # Done before the next one is due, so that splitting delays nothing but the burst itself.
        last = frames - 1
        if number + 1 < len(bursts):
            last = min(last, bursts[number + 1].frame - bursts[number + 1].is_made)
        frame = burst.frame
        places[frame][0] = _Place(FRAME, burst.tokens[0], True, number)
        for token in burst.tokens[1:]:
            while frame < last and rng.random() < split_probability:
                frame += 1
            places[frame].append(_Place(ACTION, token, True, number))
    return list(itertools.chain(*places))


def _stream(row: Row, name: str, dtype: type = np.int64) -> NDArray[Any]:
    stream = np.asarray(row[name], dtype)
    if len(stream) != row["frames"]:
        raise ValueError(f"{row['name']}: {name} has {len(stream)} of {row['frames']} frames")
    return stream


def _latents(row: Row) -> NDArray[np.float32]:
    if "user_latents" in row:
        return _stream(row, "user_latents", np.float32)
    return np.zeros((row["frames"], 0), np.float32)


def _spread(stream: NDArray[Any], kind: NDArray[np.int64], fill: int = 0) -> NDArray[Any]:
    """[frames, ...] -> [n, ...]: at frame positions, `fill` elsewhere."""
    spread = np.full((len(kind), *stream.shape[1:]), fill, stream.dtype)
    spread[kind == FRAME] = stream
    return spread
