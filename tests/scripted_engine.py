"""An engine's process with a scripted agent: `python tests/scripted_engine.py ADDRESS SLOTS`."""

import signal
import sys
import threading

from scripted_agent import ScriptedAgent

from serve.engine.endpoint import Endpoint
from serve.engine.engine import Engine, EngineConfig


def main(address: str, slots: int) -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    engine = Engine(ScriptedAgent(), EngineConfig(slots=slots, most_share=1000))
    endpoint = Endpoint(engine, address)
    print(address, flush=True)
    endpoint.run(over.is_set)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
