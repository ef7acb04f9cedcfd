"""`python -m serve.engine checkpoint=NAME address=ADDRESS`: an engine in a process of its own.

It talks to gateways at `address` and to Prometheus at http://127.0.0.1:`metrics_port`/metrics, and
tells an OpenTelemetry collector at `traces` of sessions and calls.
"""

import gc
import signal
import threading

import hydra
import torch
import zmq
from hydra.utils import instantiate
from omegaconf import DictConfig
from prometheus_client import start_http_server

from model.load_agent import load_agent
from model.ops import use_kernels
from serve.engine.endpoint import Endpoint
from serve.engine.engine import Engine
from serve.engine.traces import Traces, provider_to
from serve.engine.warm_up import warm_up
from serve.logs import log_as_json


@hydra.main(version_base=None, config_path="../../conf", config_name="engine")
def main(cfg: DictConfig) -> None:
    """Hydra entry point; ends at SIGTERM or SIGINT."""
    log_as_json()
    try:
        with use_kernels(cfg.kernels):
            _serve(cfg)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except zmq.ZMQError as error:
        raise SystemExit(f"error: address is {cfg.address!r}: {error}") from error


def _serve(cfg: DictConfig) -> None:
    torch.set_num_threads(cfg.threads)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    engine = Engine(load_agent(cfg.checkpoint), instantiate(cfg.engine, _convert_="object"))
    # What there is by now stays: looking through all of it for garbage would take longer than a
    # frame.
    gc.collect()
    gc.freeze()
    callers = warm_up(engine)
    provider = provider_to(cfg.traces) if cfg.traces else None
    engine.traces = Traces(provider)
    endpoint = Endpoint(engine, cfg.address)
    if cfg.metrics_port is not None:
        start_http_server(cfg.metrics_port, "127.0.0.1", engine.metrics.registry)
    print(f"{cfg.address}: there is room for {callers} callers at once", flush=True)
    endpoint.run(over.is_set)
    if provider:
        provider.shutdown()


if __name__ == "__main__":
    main()
