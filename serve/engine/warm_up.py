"""How long callers wait for their answers, before anybody is let in."""

import time
from collections.abc import Callable

from model.frame import FRAME_S, FRAME_SIZE
from serve.engine.admission import Admission
from serve.engine.engine import Engine
from serve.engine.messages import Close, Frame, Open, Refused
from serve.engine.metrics import Metrics

_SYSTEM = "You answer the phone. Be brief and polite."
_COLD_FRAMES = 10  # which tell nothing
_FRAMES = 8  # at each number of callers
_SILENCE = bytes(2 * FRAME_SIZE)


def warm_up(engine: Engine, sleep: Callable[[float], None] = time.sleep) -> int:
    """Callers who say nothing come in one after the other and are greeted, which is what takes
    longest, until there is no room for more: how many there is room for."""
    names: list[str] = []
    for number in range(engine.config.slots):
        name = f"warm-up {number}"
        if isinstance(engine.take(Open(name, _SYSTEM, [], seed=number)), Refused):
            break
        _run(engine)  # until he is in: frames come when a caller knows that
        names.append(name)
        if not number:
            _talk(engine, names, _COLD_FRAMES, sleep)
            engine.admission = Admission(engine.config.most_share)
        _talk(engine, names, _FRAMES, sleep)
    for name in names:
        engine.take(Close(name))
    engine.metrics = Metrics(engine.config.slots)
    return max(1, sum(map(engine.admission.may_come, range(1, engine.config.slots + 1))))


def _talk(engine: Engine, names: list[str], frames: int, sleep: Callable[[float], None]) -> None:
    """So many of each at their real pace, each caller's at another moment within the 80 ms."""
    begun_s = engine.clock()
    for place in range(frames * len(names)):
        due_s = begun_s + FRAME_S * place / len(names)
        while (left_s := due_s - engine.clock()) > 0:
            if engine.is_idle:
                sleep(left_s)
            else:
                engine.step()
        number, caller = divmod(place, len(names))
        engine.take(Frame(names[caller], number, _SILENCE, due_s))
    _run(engine)


def _run(engine: Engine) -> None:
    while not engine.is_idle:
        engine.step()
