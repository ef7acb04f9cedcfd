"""Voices: one `say(text, voice)` over several speech synthesisers, with a phrase cache on disk."""

from data.voices.say import say
from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance

__all__ = ["SAMPLE_RATE_HZ", "Phone", "Utterance", "say"]
