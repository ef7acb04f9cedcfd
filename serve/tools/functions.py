"""Python functions as tools.

A function's name is the tool's, its docstring the description, its annotations the parameters'
JSON Schema. A parameter annotated `Run` is given the run, and the agent knows nothing of it.
"""

import asyncio
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NotRequired, Required

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from model.tool_schema import decodable_tools
from serve.tools.source import Declared, Run, ToolError

_log = structlog.get_logger()
_THREADS = 8  # in which functions run that are not coroutines: as many at once


class Functions:
    """A source. What a function returns is the result, under `result` where it is no mapping.

    It may raise ToolError; a TimeoutError is one too; whatever else it raises is logged, and the
    agent hears `unavailable`. A coroutine is cancelled at its deadline. A thread can't be: what has
    begun there goes on, and a run ends when it does.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        """Raises ValueError on one that can't be a tool."""
        tools = [_tool(function) for function in functions]
        decodable_tools([vars(tool.declared) for tool in tools])
        self._tools = {tool.declared.name: tool for tool in tools}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tool")

    async def declared(self) -> Sequence[Declared]:
        """All of them."""
        return [tool.declared for tool in self._tools.values()]

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """What the function returns for these arguments. Raises ToolError."""
        found = self._tools[tool]
        given = _validated(found, arguments)
        if found.run_parameter:
            given[found.run_parameter] = run
        try:
            if inspect.iscoroutinefunction(found.function):
                async with asyncio.timeout(run.timeout_s):
                    result = await found.function(**given)
            else:
                begin = partial(_begin, run, found.function, given)
                result = await asyncio.get_running_loop().run_in_executor(self._threads, begin)
            result = to_jsonable_python(result)
        except ToolError:
            raise
        except TimeoutError:
            raise ToolError("timeout") from None
        except Exception:
            _log.exception("tool_raised", tool=tool)
            raise ToolError("unavailable") from None
        return result if isinstance(result, dict) else {"result": result}

    async def close(self) -> None:
        """What waits for a thread does not begin any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Tool:
    function: Callable[..., Any]
    declared: Declared
    arguments: TypeAdapter[Any]
    run_parameter: str  # the name of the one that is given the run, or ""


class _Untitled(GenerateJsonSchema):
    """Names are said once, and not again as titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _tool(function: Callable[..., Any]) -> _Tool:
    name = function.__name__
    if not (description := inspect.getdoc(function)):
        raise ValueError(f"function {name} has no docstring: it must say what the tool does")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    run_parameter = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"function {name}: {parameter} must be given by its name")
        if parameter.name not in hints:
            raise ValueError(f"function {name}: parameter {parameter.name} must have a type")
        if hints[parameter.name] is Run:
            run_parameter = parameter.name
        else:
            needed = Required if parameter.default is parameter.empty else NotRequired
            fields[parameter.name] = needed[hints[parameter.name]]
    arguments = TypedDict(name, fields)  # pyright: ignore
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore
    adapter: TypeAdapter[Any] = TypeAdapter(arguments)
    schema = adapter.json_schema(schema_generator=_Untitled)
    # An agent makes none but what is declared, and if it did, it would be refused here.
    parameters = {k: v for k, v in schema.items() if k not in ("title", "additionalProperties")}
    summary = " ".join(description.partition("\n\n")[0].split())
    return _Tool(function, Declared(name, summary, parameters), adapter, run_parameter)


def _begin(run: Run, function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """On its thread, for which it may have waited a while."""
    run.check()
    return function(**given)


def _validated(tool: _Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return tool.arguments.validate_python(dict(arguments))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ToolError(f"invalid arguments: {'; '.join(wrong)}") from None
