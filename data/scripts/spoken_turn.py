"""A turn in somebody's voice: when each word is said, and when each call becomes right."""

from dataclasses import dataclass

from data.scripts.turn import Call, Turn
from data.voices import Utterance, say
from data.voices.style import NEUTRAL


@dataclass(frozen=True)
class SpokenTurn:
    """`words[i]` is the number, in the utterance, of the turn's word i: a style may add fillers."""

    turn: Turn
    utterance: Utterance
    words: tuple[int, ...]

    def needed_s(self, call: Call) -> float:
        """`t_need`: the end of the last word that it needs, in seconds of the utterance."""
        return self.utterance.words[self.words[call.after]].end_s


def speak(turn: Turn, voice: str, style: str = NEUTRAL) -> SpokenTurn:
    """Says a turn. Raises ValueError as `say` does."""
    utterance = say(turn.text, voice, style)
    words: list[int] = []
    for number, word in enumerate(utterance.words):
        if len(words) < len(turn.pieces) and word.text == turn.pieces[len(words)].text:
            words.append(number)
    assert len(words) == len(turn.pieces), f"{utterance.text!r} is not {turn.text!r}"
    return SpokenTurn(turn, utterance, tuple(words))
