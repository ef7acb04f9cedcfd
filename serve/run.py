"""`python -m serve.run checkpoint=DIR`: a server that the clients people already have can call.

Engines in processes of their own, and a gateway in front of them. At SIGTERM nobody comes in any
more, and it ends when all calls have, or after `gateway.drain_s`; a second signal ends it at once.
"""

import asyncio
import gc
import ipaddress
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import FrameType

import hydra
import uvicorn
import uvloop
from hydra.utils import instantiate
from omegaconf import DictConfig
from starlette.applications import Starlette

from serve.gateway.app import app_of
from serve.gateway.connection import Connection
from serve.gateway.engines import keep_running
from serve.gateway.gateway import Gateway
from serve.gateway.handoffs import Handoffs
from serve.gateway.identity import Identity
from serve.gateway.limits import Limits
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.logs import log_as_json
from serve.tools.runtime import ToolRuntime
from serve.webhooks.settings import read_receivers
from serve.webhooks.webhooks import Webhooks

_MOST_MESSAGE = 2**22  # bytes; a minute of sound at once
_PING_S = 20.0  # a client that does not answer so long is gone


class Server(uvicorn.Server):
    """Lets calls end before it does."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._draining: asyncio.Future[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self._draining:
            super().handle_exit(sig, frame)
        else:
            loop = asyncio.get_running_loop()
            self._draining = asyncio.run_coroutine_threadsafe(self._drain(), loop)  # pyright: ignore

    async def _drain(self) -> None:
        await self._gateway.drain()
        self.should_exit = True


async def serve(cfg: DictConfig) -> None:
    """Raises ValueError on what can't be."""
    if cfg.tenants is None and not ipaddress.ip_address(cfg.host).is_loopback:
        raise ValueError(f"host is {cfg.host}: without `tenants` it must be a loopback address")
    identity, metrics = Identity(Path(cfg.tenants) if cfg.tenants else None), Metrics()
    async with AsyncExitStack() as ending:
        tools = ToolRuntime(instantiate(cfg.tools))
        ending.push_async_callback(tools.close)
        await tools.open()
        folder = ending.enter_context(tempfile.TemporaryDirectory())
        own = [f"ipc://{folder}/engine-{number}" for number in range(cfg.engines)]
        gateway = Gateway(
            instantiate(cfg.gateway, _convert_="object"),
            instantiate(cfg.session, _convert_="object"),
            Link([*cfg.addresses] or own, metrics),
            Limits(instantiate(cfg.limits)),
            metrics,
            tools,
        )
        handoffs = Handoffs(instantiate(cfg.handoff), gateway)
        ending.push_async_callback(handoffs.close)
        if cfg.webhooks.receivers:
            webhooks = Webhooks(
                read_receivers(Path(cfg.webhooks.receivers)), Path(cfg.webhooks.outbox)
            )
            await webhooks.open()
            ending.push_async_callback(webhooks.close)
            gateway.observe(webhooks.listener)
        if not cfg.addresses:
            await ending.enter_async_context(_engines(cfg, own))
        await Server(
            _uvicorn_config(cfg, gateway, app_of(gateway, identity, handoffs)), gateway
        ).serve()


@asynccontextmanager
async def _engines(cfg: DictConfig, addresses: Sequence[str]) -> AsyncIterator[None]:
    """Processes of its own, one at each address."""
    running = [
        asyncio.create_task(keep_running(address, _arguments(cfg, number)))
        for number, address in enumerate(addresses)
    ]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _uvicorn_config(cfg: DictConfig, gateway: Gateway, app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app, cfg.host, cfg.port,
        log_config=None, access_log=False, server_header=False,
        ws_max_size=_MOST_MESSAGE, ws_ping_interval=_PING_S, ws_ping_timeout=_PING_S,
        http=gateway.hall.doors(), ws=Connection, ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=cfg.tls.certificate, ssl_keyfile=cfg.tls.key,
    )  # fmt: skip


def _arguments(cfg: DictConfig, number: int) -> list[str]:
    """Of an engine's process, as Hydra reads them on a command line."""
    process = dict(cfg.engine_process)
    if process["metrics_port"] is not None:
        process["metrics_port"] += number
    given = {"checkpoint": cfg.checkpoint, **process}
    given |= {f"engine.{name}": value for name, value in cfg.engine.items()}
    return [f"{name}={'null' if value is None else value}" for name, value in given.items()]


@hydra.main(version_base=None, config_path="../conf", config_name="serve")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    log_as_json()
    gc.collect()
    gc.freeze()  # all that is there already: going through it takes 75 ms, in which nobody is heard
    gc.set_threshold(700, 10, 1)  # a little at a time: else what 10 clients leave takes 50 ms
    try:
        uvloop.run(serve(cfg))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
