"""A checkpoint as the agent that it is."""

from pathlib import Path

from model.agent import Agent
from model.checkpoint import load_duplex


def load_agent(checkpoint: Path | str) -> Agent:
    """Loads a duplex model; raises ValueError naming `checkpoint` where it is none that speaks."""
    try:
        return Agent(load_duplex(checkpoint))
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # no files, wrong contents
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"checkpoint is {str(checkpoint)!r}: {reason}") from error
