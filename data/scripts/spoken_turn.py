"""A turn in somebody's voice: when each word is said, and when each call becomes right."""

import dataclasses
from dataclasses import dataclass

from data.augment import speed
from data.scripts.turn import Call, Turn
from data.voices import Utterance, say
from data.voices.silent import SILENT, silent
from data.voices.style import NEUTRAL, STYLES, scaled, with_silence


@dataclass(frozen=True)
class SpokenTurn:
    """`words[i]` is the number, in the utterance, of the turn's word i: a style may add fillers."""

    turn: Turn
    utterance: Utterance
    words: tuple[int, ...]

    def said_s(self, word: int) -> float:
        """When word `word` of the turn has been said, in seconds of the utterance."""
        return self.utterance.words[self.words[word]].end_s

    def needed_s(self, call: Call) -> float:
        """`t_need`: the end of the last word that it needs, in seconds of the utterance."""
        return self.said_s(call.after)


def _at_speed(utterance: Utterance, factor: float) -> Utterance:
    if factor == 1.0:
        return utterance
    return dataclasses.replace(
        utterance,
        audio=speed(utterance.audio, factor),
        phones=tuple(scaled(phone, 1 / factor) for phone in utterance.phones),
        words=tuple(scaled(word, 1 / factor) for word in utterance.words),
    )


def speak(turn: Turn, voice: str, style: str = NEUTRAL, factor: float = 1.0) -> SpokenTurn:
    """Says a turn, with the pauses in it; `factor` plays it faster and higher (another speaker,
    nearly). Raises ValueError as `say` does."""
    if voice == SILENT:
        utterance = silent(turn.text, STYLES[style])
    else:
        utterance = _at_speed(say(turn.text, voice, style), factor)
    words: list[int] = []
    for number, word in enumerate(utterance.words):
        if len(words) < len(turn.pieces) and word.text == turn.pieces[len(words)].text:
            words.append(number)
    assert len(words) == len(turn.pieces), f"{utterance.text!r} is not {turn.text!r}"
    for number, piece in zip(words, turn.pieces, strict=True):
        if piece.pause_s:
            at_s = utterance.words[number + 1].start_s
            utterance = with_silence(utterance, at_s, piece.pause_s)
    return SpokenTurn(turn, utterance, tuple(words))
