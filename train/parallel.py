"""Many small jobs over a few processes of one thread each, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from tqdm import tqdm

KeyT = TypeVar("KeyT", bound=Hashable)


def _one_thread() -> None:
    import torch  # after the environment says one thread

    torch.set_num_threads(1)


def run_all(
    jobs: Mapping[KeyT, Callable[[], Any]], processes: int, description: str
) -> dict[KeyT, Any]:
    """Runs every job and returns its result under the same key.

    Jobs must be picklable (functools.partial of a module's function); `processes=1` runs them here.
    The first job that raises ends the run.
    """
    bar = tqdm(total=len(jobs), desc=description, unit="job", smoothing=0.02)
    with bar:
        if processes == 1:
            return {key: _advance(bar, job()) for key, job in jobs.items()}
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that start now
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _one_thread) as pool:
            waiting = {pool.submit(job): key for key, job in jobs.items()}
            try:
                return {
                    waiting[done]: _advance(bar, done.result()) for done in as_completed(waiting)
                }
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _advance(bar: tqdm, result: Any) -> Any:
    bar.update()
    return result
