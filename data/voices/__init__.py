"""Voices: one `say(text, voice, style)` over several synthesisers, with a phrase cache on disk."""

from data.voices.say import say
from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance, Word

__all__ = ["SAMPLE_RATE_HZ", "Phone", "Utterance", "Word", "say"]
