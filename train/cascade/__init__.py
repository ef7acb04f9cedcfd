"""The baseline: a cascade of voice activity, recogniser, rules and voice, as people build it."""
