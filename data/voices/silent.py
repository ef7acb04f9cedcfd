"""Speech that nobody hears: words at likely times, for scripts that need no sound."""

import numpy as np

from data.voices.style import Style
from data.voices.utterance import SAMPLE_RATE_HZ, Utterance, Word

SILENT = "silent"  # the voice
_WORD_S, _LETTER_S, _CLAUSE_S = 0.12, 0.055, 0.15  # near flite:rms's mean


def silent(text: str, style: Style) -> Utterance:
    """Zeros as long as the text would take, and when each word would be said."""
    words: list[Word] = []
    time_s = 0.0
    for word in text.split():
        letters = sum(letter.isalpha() for letter in word)
        end_s = time_s + (_WORD_S + _LETTER_S * letters) / style.tempo
        words.append(Word(word, time_s, end_s))
        time_s = end_s + _CLAUSE_S / style.tempo * (word[-1] in ",.?!")
    audio = np.zeros(round(time_s * SAMPLE_RATE_HZ), np.float32)
    return Utterance(text, SILENT, audio, (), tuple(words))
