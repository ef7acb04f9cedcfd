"""A script in time: voices say it on two channels, calls come when they are right."""

import json
import random

from data.dialogue import AGENT, USER, Dialogue
from data.render import render
from data.scripts.domain import load_domain
from data.scripts.script import Heard, Script
from data.timeline import Cast, Timeline
from data.voices.say import licence_of
from data.voices.style import NEUTRAL

_END_S = 0.6  # of silence
_AGENT_STYLES = {"urgent": "brisk", "brisk": "brisk", "calm": "calm"}  # by the caller's


def perform(script: Script, cast: Cast, name: str, rng: random.Random) -> Dialogue:
    """Voices say a script. Raises ValueError as `say` does."""
    styles = (_AGENT_STYLES.get(script.style, NEUTRAL), script.style)
    timeline = Timeline(cast, styles, script.split, rng)
    for step in script.steps:
        timeline.add(step)
    audio = render(timeline.turns, timeline.backgrounds, timeline.end_s + _END_S)
    turns = sorted(timeline.turns, key=lambda turn: turn.spell.start_s)
    agent, user = (
        tuple(
            sorted(
                (word for turn in turns if turn.side == side for word in turn.words()),
                key=lambda word: word.start_s,
            )
        )
        for side in (AGENT, USER)
    )
    spells = [turn.spell for turn in turns] + [sound.spell for sound in timeline.backgrounds]
    return Dialogue(
        name,
        audio,
        (agent, user),
        source=f"{script.domain}, {cast.agent} and {cast.user}",
        licence=_licence(script, cast),
        actions=tuple(timeline.actions()),
        spells=tuple(sorted(spells, key=lambda spell: spell.start_s)),
        unsaid=tuple(word for turn in turns if turn.side == AGENT for word in turn.unsaid()),
        system=script.system,
        tools=_declared(script),
        script=script.to_json(),
    )


def _licence(script: Script, cast: Cast) -> str:
    """What its sounds are under, each once."""
    voices = [cast.agent, cast.user]
    sounds = {step.sound for step in script.steps if isinstance(step, Heard)}
    if "overheard" in sounds:
        voices.append(cast.other)
    names = [licence_of(voice) for voice in voices]
    if "music" in sounds:
        names.append("hold music: CC-BY-SA-3.0")
    return "; ".join(dict.fromkeys(names))


def _declared(script: Script) -> str:
    """The declared tools, as they stand in the model's prefix."""
    tools = load_domain(script.domain).tools
    fields = ("name", "description", "parameters")
    listed = [{field: getattr(tools[name], field) for field in fields} for name in script.tools]
    return json.dumps(listed, separators=(",", ":"))
