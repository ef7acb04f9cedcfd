"""The agent's and the user's words on their streams, one token a frame."""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.frame import FRAME_S
from model.tokens import DialogueTokenizer

Row = Mapping[str, Any]  # of a shard: data.shards.features

_BREATH_S = 1.5  # between the beginnings of two words of a turn, at most
_SLACK_S = 1e-6  # by which times that are meant to be the same may differ
_UNSPOKEN = re.compile(r"[^\w']")


class Text(NamedTuple):
    """Tokens, one a frame from `frame` on."""

    frame: int
    tokens: list[int]

    @property
    def end(self) -> int:
        """The first frame after them."""
        return self.frame + len(self.tokens)


def user_texts(row: Row, tokenizer: DialogueTokenizer, delay: int, is_plain: bool) -> list[Text]:
    """The text of each of the user's words, `delay` frames after its end at the earliest."""

    def texts() -> Iterator[Text]:
        for word in row["user_words"]:
            text = plain(word["text"]) if is_plain else word["text"]
            tokens = tokenizer.encode(f" {text}") if text else []
            yield Text(int(word["end_s"] / FRAME_S) + delay, tokens)

    return _queued(texts())


def plain(word: str) -> str:
    """A word as it sounds: small letters, digits and apostrophes."""
    return _UNSPOKEN.sub("", word.lower())


def written(row: Row, user: Sequence[Text], time_s: float) -> int:
    """The first frame after the text of all words that the user had said by then."""
    pairs = zip(row["user_words"], user, strict=True)
    return max((text.end for word, text in pairs if word["end_s"] <= time_s + _SLACK_S), default=0)


def agent_texts(
    row: Row,
    tokenizer: DialogueTokenizer,
    lead: int,
    user: Sequence[Text],
    acted: Sequence[int],
    heard: bool,
) -> list[Text]:
    """The agent's words, `lead` frames before their sound; a style before its turn's first one.

    `acted` are the frames of the row's actions. Of the words that an interruption cut off, those
    whose text was due before it are there: text that stopped ahead of the interruption would give
    it away. A turn's text waits, as a whole, for what it may speak of: the actions and the user's
    words that were there when the turn began. Ahead of them by its lead, it would be learned as a
    guess.
    """
    turns = sorted(row["agent_turns"], key=lambda turn: turn["start_s"])
    starts = [turn["start_s"] for turn in turns]
    words = sorted(_in_turns(row, starts), key=lambda pair: pair[0]["start_s"])

    def texts() -> Iterator[Text]:
        spoken_in, wait = -1, 0
        for word, turn in words:
            if turn < spoken_in:
                continue  # cut off, and the next turn has begun
            frame = int(word["start_s"] / FRAME_S) - lead
            tokens = tokenizer.encode(f" {word['text']}")
            if turn > spoken_in:
                known = _known(row, user, acted, starts[turn], heard)
                spoken_in, wait = turn, max(0, known - frame)
                if turns[turn]["style"] != "neutral":
                    tokens = [tokenizer.id_of(f"<{turns[turn]['style']}>"), *tokens]
            stops_s = turns[turn]["end_s"] if turn >= 0 else math.inf
            if stops_s <= word["start_s"] and frame + wait >= int(stops_s / FRAME_S):
                continue  # cut off before its text was due
            yield Text(frame + wait, tokens)

    return _queued(texts())


def _in_turns(row: Row, starts: Sequence[float]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """The agent's words, each with the number of its turn. Words that were cut off would have come
    while the next turn is spoken already: they go on from one another."""
    for word in row["agent_words"]:
        yield word, bisect_right(starts, word["start_s"]) - 1
    last_s, turn = -math.inf, -1
    for word in row["agent_unsaid_words"]:
        if not 0 <= word["start_s"] - last_s < _BREATH_S:
            turn = bisect_right(starts, word["start_s"]) - 1
        last_s = word["start_s"]
        yield word, turn


def _known(
    row: Row, user: Sequence[Text], acted: Sequence[int], start_s: float, heard: bool
) -> int:
    """The first frame after all that was said, done or given before a turn.

    Words that are heard are known before they are written, others are not.
    """
    ends = [word["end_s"] for word in row["user_words"] if word["end_s"] <= start_s]
    said = int(max(ends) / FRAME_S) + 1 if ends else 0
    if not heard:
        said = written(row, user, start_s)
    pairs = zip(acted, row["actions"], strict=True)
    return max([said, *(frame + 1 for frame, action in pairs if action["time_s"] <= start_s)])


def _queued(texts: Iterable[Text]) -> list[Text]:
    """Each one as soon as it may and the one before is done."""
    queued: list[Text] = []
    for text in texts:
        free = queued[-1].end if queued else 0
        queued.append(text._replace(frame=max(text.frame, free)))
    return queued


def lay(texts: Sequence[Text], frames: int, pad: int) -> NDArray[np.int64]:
    """One token a frame [frames]; what is not done at the last one is left out."""
    stream = np.full(frames, pad)
    for frame, tokens in texts:
        room = stream[frame : frame + len(tokens)]
        room[:] = tokens[: len(room)]
    return stream
