"""The engines that a gateway starts itself: processes that are started again when they end."""

import asyncio
import ctypes
import signal
import sys
from collections.abc import Sequence

import structlog

_log = structlog.get_logger()
_REST_S = 1.0  # before one that has ended is started again
_PR_SET_PDEATHSIG = 1


def _end_with_us() -> None:
    """A signal to our terminal is not the engines' (calls may still end), but they don't outlive
    us (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def keep_running(address: str, arguments: Sequence[str]) -> None:
    """`python -m serve.engine` at `address`, until it is cancelled."""
    command = ["-m", "serve.engine", f"address={address}", *arguments]
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command,
            stdout=asyncio.subprocess.PIPE, start_new_session=True, preexec_fn=_end_with_us,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                _log.info("engine_ready", said=line.decode().strip())
            _log.error("engine_ended", address=address, status=await process.wait())
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        await asyncio.sleep(_REST_S)
