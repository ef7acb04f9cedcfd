"""Roles and tools that were taken in once: the next caller with the same begins behind them."""

from collections import OrderedDict

import msgspec

from model.agent import SavedCaller
from serve.engine.messages import Open


class Prefixes:
    """So many of them as `most`, those that were used last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._saved: OrderedDict[bytes, SavedCaller] = OrderedDict()

    def find(self, command: Open) -> SavedCaller | None:
        """A caller right behind the prefix that an `Open` has."""
        key = _key(command)
        if key in self._saved:
            self._saved.move_to_end(key)
        return self._saved.get(key)

    def keep(self, command: Open, saved: SavedCaller) -> None:
        """What `find` is to give from now on."""
        self._saved[_key(command)] = saved
        if len(self._saved) > self.most:
            self._saved.popitem(last=False)


def _key(command: Open) -> bytes:
    return msgspec.msgpack.encode((command.system, command.tools))
