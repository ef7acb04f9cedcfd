"""Makes scripts: scenes of a domain, one after the other, between a greeting and a goodbye."""

import random
from collections.abc import Sequence

from data.scripts.composer import Composer
from data.scripts.domain import HANDOFF, Domain
from data.scripts.scene import Scene, check_talk, load_scenes
from data.scripts.script import Script
from data.scripts.turn import turn_of
from data.sentences import Split

_ALL_TOOLS = 0.6  # share of the calls in which every tool is declared
_STYLES = {"neutral": 0.6, "calm": 0.1, "brisk": 0.12, "hesitant": 0.08, "urgent": 0.1}
_NOBODY_SPEAKS = ("nobody", "music")  # scenes that are whole calls


def compose(domain: Domain, split: Split, scenes: Sequence[str], rng: random.Random) -> Script:
    """A conversation of these scenes, in their order.

    Raises ValueError where the domain has no tool for one of them.
    """
    check_talk(domain)
    played = [load_scenes()[name] for name in scenes]
    tools = _declared(domain, played, rng)
    styles = [scene.style for scene in played if scene.style]
    style = styles[0] if styles else rng.choices([*_STYLES], [*_STYLES.values()])[0]
    composer = Composer(domain, split, style, tools, rng)
    role = rng.choice(list(domain.role))
    system = turn_of(domain, role, composer.role.__getitem__).text
    if played[0].name not in _NOBODY_SPEAKS:
        composer.say("agent", composer.talk("greeting", "agent"))
    for scene in played:
        composer.play(scene)
    if not played[-1].ends:
        composer.say("user", composer.talk("thanks", "user"))
        composer.say("agent", composer.talk("goodbye", "agent"))
    return Script(domain.name, split, system, tools, style, tuple(scenes), tuple(composer.steps))


def _declared(domain: Domain, played: Sequence[Scene], rng: random.Random) -> tuple[str, ...]:
    """The tools of a call: all, or some of them, so that each scene has what it is about."""
    for scene in played:
        if not scene.fitting(domain):
            raise ValueError(f"scene {scene.name}: {domain.name} has no tool for it")
    while True:
        is_whole = rng.random() < _ALL_TOOLS
        kept = {name for name in domain.tools if is_whole or rng.random() < 0.5}
        kept |= {HANDOFF} & {*domain.tools}
        if all(_has_tool(scene, domain, kept) for scene in played):
            return tuple(name for name in domain.tools if name in kept)


def _has_tool(scene: Scene, domain: Domain, declared: set[str]) -> bool:
    fitting = {*scene.fitting(domain)}
    return bool(fitting - declared if scene.tools == "undeclared" else fitting & declared)


def draw_scenes(domain: Domain, count: int, rng: random.Random) -> list[str]:
    """What a call of that many scenes at most is made of; one that ends it comes last."""
    playable = [scene for scene in load_scenes().values() if scene.fitting(domain)]
    drawn: list[Scene] = []
    while len(drawn) < count and not (drawn and drawn[-1].ends):
        scene = rng.choices(playable, [scene.share for scene in playable])[0]
        if scene.name in _NOBODY_SPEAKS and drawn:
            continue
        if scene.style and any(other.style not in ("", scene.style) for other in drawn):
            continue
        drawn.append(scene)
    return [scene.name for scene in drawn]
