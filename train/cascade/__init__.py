"""The baseline: a cascade of voice activity, recogniser, dialogue rules and voice, as people build."""
