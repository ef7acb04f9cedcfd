"""`python -m serve.audit verify|export|prune|erase LOG`: the audit log, from outside the server.

LOG is `postgresql://...` or the path of an SQLite file. Times are ISO 8601, in UTC unless they say
otherwise. `verify` and what does not work end with status 1.
"""

import argparse
import getpass
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from serve.tools.audit_chain import Line, iso
from serve.tools.audit_database import Selection, opened
from serve.tools.audit_upkeep import erase, prune, unfinished, verify


def _time(text: str) -> str:
    time = datetime.fromisoformat(text)
    return iso(time if time.tzinfo else time.replace(tzinfo=UTC))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve.audit", description="The audit log.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    log = argparse.ArgumentParser(add_help=False)
    log.add_argument("log", metavar="LOG", help="postgresql://... or the path of an SQLite file")
    key = argparse.ArgumentParser(add_help=False)
    key.add_argument("--key", type=Path, metavar="FILE", help="holds the key of the chain")
    some = argparse.ArgumentParser(add_help=False)
    for name in ("tenant", "session", "call"):
        some.add_argument(f"--{name}", dest="call_id" if name == "call" else name)
    some.add_argument("--since", type=_time, metavar="TIME")
    some.add_argument("--until", type=_time, metavar="TIME", help="exclusive")
    checked = verbs.add_parser("verify", parents=[log, key], help="name the first wrong line")
    checked.add_argument("--head", default="", help="that was printed before and is to be there")
    exported = verbs.add_parser("export", parents=[log, some], help="lines as JSON Lines")
    exported.add_argument("--readable", action="store_true", help="for people instead")
    exported.add_argument(
        "--unfinished",
        action="store_true",
        help="starts of calls whose end is not there: what runs now, and what a server that was "
        "killed may have done",
    )
    pruned = verbs.add_parser("prune", parents=[log, key], help="delete what is old")
    pruned.add_argument("--before", type=_time, metavar="TIME", required=True)
    verbs.add_parser("erase", parents=[log, key, some], help="erase lines' details, not the lines")
    return parser.parse_args()


def _readable(line: Line) -> str:
    change = f"{line.before} -> {line.after}" if line.before or line.after else ""
    details = "(erased)" if line.is_erased else line.details
    told = (line.time, line.session, line.call_id, line.kind, line.actor, change, details)
    return f"{line.place:>6}  " + "  ".join(text for text in told if text)


def _answers(given: argparse.Namespace) -> Iterator[str]:
    """Lines to print. Raises ValueError where the log is not whole."""
    names = Selection.__dataclass_fields__
    selection = Selection(**{name: getattr(given, name, None) for name in names})
    key = given.key.read_bytes().strip() if getattr(given, "key", None) else b""
    actor = f"operator:{getpass.getuser()}"
    if given.verb == "verify":
        verdict = verify(given.log, key, given.head)
        if verdict.fault:
            raise ValueError(verdict.fault)
        yield f"whole: {verdict.lines} lines, details of {verdict.erased} erased"
        yield f"head: {verdict.head}"
    elif given.verb == "export":
        with opened(given.log) as database:
            lines = database.lines(selection)
            for line in unfinished(lines) if given.unfinished else lines:
                yield _readable(line) if given.readable else json.dumps(line.as_json())
    elif given.verb == "prune":
        yield f"{prune(given.log, given.before, actor, key)} lines pruned"
    else:
        yield f"details of {erase(given.log, selection, actor, key)} lines erased"


def main() -> None:
    """Command line."""
    try:
        for answer in _answers(_arguments()):
            print(answer)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
