"""How long rounds take, before anybody is let in."""

from model.codec import FRAME_SIZE
from serve.engine.admission import Admission
from serve.engine.engine import Engine
from serve.engine.messages import Close, Frame, Open, Refused
from serve.engine.metrics import Metrics

_SYSTEM = "You answer the phone. Be brief and polite."
_COLD_FRAMES = 10  # whose rounds tell nothing
_FRAMES = 4  # at each number of callers
_SILENCE = bytes(2 * FRAME_SIZE)


def warm_up(engine: Engine) -> int:
    """Callers who say nothing come in one after the other and are greeted, which is what takes
    longest, until there is no room for more: how many there is room for."""
    names: list[str] = []
    for number in range(engine.config.slots):
        name = f"warm-up {number}"
        if isinstance(engine.take(Open(name, _SYSTEM, [], seed=number)), Refused):
            break
        names.append(name)
        _frames(engine, names, _FRAMES if number else _COLD_FRAMES + _FRAMES)
        if not number:
            engine.admission = Admission(engine.config.most_share)
    for name in names:
        engine.take(Close(name))
    engine.metrics = Metrics(engine.config.slots)
    return sum(map(engine.admission.may_come, range(1, engine.config.slots + 1)))


def _frames(engine: Engine, names: list[str], count: int) -> None:
    for number in range(count):
        for name in names:
            engine.take(Frame(name, number, _SILENCE))
        while not engine.is_idle:
            engine.step()
