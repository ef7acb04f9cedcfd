"""What tools may do, and after whose word: one YAML file, over which nothing is believed.

    grants: {shop: [orders]}             # scopes that tenants have
    handoff_failures: 2                  # so many calls that fail in a row bring a human in
    tools:
      order_status: {effect: read, confirmation: none, speculation: true, timeout_s: 5, retries: 2}
      cancel_order: {effect: irreversible, confirmation: voice, scopes: [orders]}

A tool that it does not name runs only where a supervisor has confirmed it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import limits
import msgspec
import yaml

Method = Literal["none", "voice", "dtmf", "console", "supervisor"]
Effect = Literal["read", "write", "irreversible"]
Delivery = Literal["interrupt", "when_idle", "silent"]

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_HIDDEN = "[redacted]"


class Breaker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After so many failures in a row nothing runs for `reset_s`; then one call tries again."""

    failures: _Count
    reset_s: _Seconds


class Compensation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tool that undoes a write which nobody wants any more. Each of `fields` is an argument of
    its, taken from the write's result, else from its arguments."""

    tool: str
    fields: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for one tool.

    `confirm_s` is how long its confirmation may take, `timeout_s` how long the tool may. `rates`
    are written as `limits` reads them, such as "3/minute": for a tenant's session each. `retries`
    are made where the tool says that nothing has happened. A call of less confidence than
    `min_confidence` is confirmed (by voice, where `confirmation` is none) or handed off. Fields of
    arguments and results that have a name in `redact` are not written down.
    """

    effect: Effect
    confirmation: Method
    confirm_s: _Seconds = 60.0
    scopes: tuple[str, ...] = ()
    speculation: bool = False
    rates: tuple[str, ...] = ()
    timeout_s: _Seconds = 10.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    idempotent: bool = False
    breaker: Breaker | None = None
    concurrency: _Count | None = None
    delivery: Delivery = "interrupt"
    compensation: Compensation | None = None
    redact: tuple[str, ...] = ()
    min_confidence: _Share = 0.0
    unsure: Literal["confirm", "handoff"] = "confirm"
    refused: Literal["tell", "handoff"] = "tell"

    def redacted(self, value: Any) -> Any:
        """`value`, whatever JSON it is, with nothing in it that must not be written down."""
        if isinstance(value, Mapping):
            return {k: _HIDDEN if k in self.redact else self.redacted(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.redacted(one) for one in value]
        return value


_STRICTEST = Rule("irreversible", "supervisor")
# Of a client's own tool nothing is known: in a mode that lets only reads run, it does not.
_CLIENTS_OWN = Rule("irreversible", "none", speculation=True, timeout_s=86_400.0)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tools: dict[str, Rule]
    grants: dict[str, tuple[str, ...]] = {}
    handoff_failures: _Count = 2


@dataclass(frozen=True)
class Policy:
    """The rules of a file: `load` it; or none (`Policy.open()`), and clients run their tools as
    they like."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    grants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    handoff_failures: int = 2
    is_open: bool = False

    @staticmethod
    def open() -> "Policy":
        """A client's own tools run at once. Others have no rule."""
        return Policy(is_open=True)

    @staticmethod
    def load(path: Path) -> "Policy":
        """Raises ValueError with the line and the field where something is wrong in the file."""
        try:
            file = _read(path.read_text())
        except (yaml.MarkedYAMLError, yaml.reader.ReaderError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        except _Wrong as error:
            place = ".".join(error.path)
            where = f"{path.name}, line {error.line}: {place}{': ' if place else ''}"
            raise ValueError(f"{where}{error}") from error
        return Policy(file.tools, file.grants, file.handoff_failures)

    def rule(self, tool: str, is_client_run: bool) -> Rule:
        """What holds for a tool."""
        if self.is_open and is_client_run:
            return _CLIENTS_OWN
        return self.rules.get(tool, _STRICTEST)

    def is_granted(self, tenant: str, rule: Rule) -> bool:
        """Whether the tenant has what the tool asks for."""
        return {*rule.scopes} <= {*self.grants.get(tenant, ())}


class _Wrong(Exception):
    """Something in a file, at a path of keys and places in lists, on that line."""

    def __init__(self, message: str, path: Sequence[str], line: int) -> None:
        super().__init__(message)
        self.path, self.line = path, line


def _read(text: str) -> _File:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise _Wrong("the file is empty", (), 1)
    for key in _twice(root):
        raise _Wrong(f"`{key.value}` is there twice", (), key.start_mark.line + 1)
    document = yaml.safe_load(text)
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at ")
        path = _path(at, document)
        unknown = re.search("unknown field `(.+)`", message)
        line = _line(root, [*path, unknown[1]] if unknown else path)
        raise _Wrong(message, path, line) from error
    for name, rule in file.tools.items():
        for where, message in _problems(name, rule, file.tools):
            path = ["tools", name, *where]
            raise _Wrong(message, path, _line(root, path))
    return file


def _twice(node: yaml.Node) -> Iterator[yaml.Node]:
    """Keys that a mapping anywhere below has had before: YAML would take the last one."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _twice(child)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            if isinstance(key.value, str) and key.value in seen:
                yield key
            seen.add(str(key.value))
            yield from _twice(child)


def _path(at: str, document: Any) -> list[str]:
    """Where a document is not right, of where msgspec says it: for a key of a mapping it says only
    `[...]`, so each of that mapping's entries is tried alone."""
    if at.startswith("`key` in"):
        at += "[...]"
    steps = re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", at)
    path = [name or place for name, place in steps]
    if path[1:2] == ["..."]:
        section = document[path[0]]
        path[1] = next(str(key) for key in section if _is_wrong(path[0], key, section[key]))
    return path


def _is_wrong(section: str, key: Any, value: Any) -> bool:
    try:
        msgspec.convert({"tools": {}, section: {key: value}}, _File)
    except msgspec.ValidationError:
        return True
    return False


def _line(node: yaml.Node, path: Sequence[str]) -> int:
    """Of what is there; where the path leads out of the file, of the last that is."""
    line = node.start_mark.line
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == step]
        elif isinstance(node, yaml.SequenceNode):
            found = [(child, child) for child in node.value[int(step) : int(step) + 1]]
        else:
            found = []
        if not found:
            break
        line, node = found[0][0].start_mark.line, found[0][1]
    return line + 1


def _problems(
    name: str, rule: Rule, rules: Mapping[str, Rule]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a rule, and where in it."""
    if rule.speculation and rule.effect != "read":
        yield ("speculation",), "only what reads may run before the caller has ended"
    if rule.speculation and rule.confirmation != "none":
        yield ("speculation",), "what is to be confirmed can't run before that"
    if rule.retries and rule.effect != "read" and not rule.idempotent:
        yield ("retries",), "only what reads, or is `idempotent: true`, may be tried again"
    for place, rate in enumerate(rule.rates):
        try:
            limits.parse_many(rate)
        except ValueError as error:
            yield ("rates", str(place)), str(error)
    undoing = rule.compensation
    if undoing and rule.effect == "read":
        yield ("compensation",), "there is nothing to undo in what reads"
    if undoing and (undoing.tool == name or undoing.tool not in rules):
        yield ("compensation", "tool"), f"{undoing.tool} is no other tool that has a rule here"
