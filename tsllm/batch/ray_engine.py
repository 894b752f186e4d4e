"""Forecasts of blocks by Ray's actors, on this machine or on a cluster."""

import contextlib
import os
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tsllm.batch.worker import BlockForecaster, BlockResult, Job
from tsllm.errors import ClusterNotFoundError, WorkerDiedError

#: Number of tries of a block whose worker dies.
_TRIES = 4
#: Seconds to wait for a cluster's answer; Ray's own default is minutes.
_PATIENCE = 10


@dataclass(frozen=True)
class Workers:
    """The number of Ray workers and the resources of each.

    Attributes
    ----------
    number : int or None, default=None
        None: as many as the cluster has room for.
    cpus : float, default=1.0
        Processors per worker; torch uses as many threads.
    gpus : float, default=0.0
        GPUs per worker.
    """

    number: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def run_on_ray(job: Job, numbers: Sequence[int], workers: Workers) -> Iterator[BlockResult]:
    """Forecast blocks on Ray and yield each when it is written, in the order of their ends.

    ``RAY_ADDRESS`` names the cluster; without it Ray is started on this machine, and stopped at the
    end. A worker that dies is replaced, and another repeats its block; so the job continues on the
    machines that are left where one is lost. On a cluster all nodes need tsllm and a shared file
    system with model, data and output.

    Raises
    ------
    ImportError
        Ray is not installed.
    ClusterNotFoundError
        There is no cluster at ``RAY_ADDRESS``, or it refuses this process.
    WorkerDiedError
        Workers died repeatedly on a block.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's reports of use; read at import
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'tsllm[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        _start(ray, job, workers)
    actors: list[Any] = []
    try:
        kind = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_Worker)

        def start() -> Any:
            actors.append(kind.remote(job, workers.cpus))
            return actors[-1]

        slots = min(_slots(ray.cluster_resources(), workers), len(numbers))
        yield from _distribute(ray, start, numbers, slots)
    finally:
        for one in actors:
            ray.kill(one)
        if ours:
            ray.shutdown()


def _distribute(
    ray: Any, start: Callable[[], Any], numbers: Sequence[int], slots: int
) -> Iterator[BlockResult]:
    """Give each block to a worker that runs, and yield its result.

    A worker that dies, alone or with its machine, is replaced, and another takes its block. The new
    one may never run, where the cluster has lost the room for it: no block waits for it.
    """
    waiting = list(reversed(numbers))
    left = set(numbers)
    deaths: Counter[int | None] = Counter()  # of each block; None: of workers that were starting
    idle: list[Any] = []
    # Each with its worker and its block, None where the worker starts.
    running: dict[Any, tuple[Any, int | None]] = {}

    def add_worker() -> None:
        worker = start()
        running[worker.ready.remote()] = worker, None

    def hand_out() -> None:
        while waiting and idle:
            worker, number = idle.pop(), waiting.pop()
            running[worker.run.remote(number)] = worker, number

    for _ in range(slots):
        add_worker()
    while left:
        hand_out()
        (done, *_), _ = ray.wait(list(running))
        worker, block = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # the worker's own error
        except ray.exceptions.RayActorError as error:
            deaths[block] += 1
            if deaths[block] == _TRIES:
                raise WorkerDiedError(
                    f"a worker died {_TRIES} times on one block: give each more memory, with "
                    "fewer workers or a smaller batch_size, and start the job again; it continues "
                    "where it was"
                ) from error
            if block is not None:
                waiting.append(block)
            if not idle:
                add_worker()
            continue
        idle.append(worker)
        if block is not None:
            left.discard(block)
            hand_out()  # before the caller reads the result, which may take time
            yield result


class _Worker:
    """An actor that loads the model once, from its path."""

    def __init__(self, job: Job, cpus: float) -> None:
        self.job, self.cpus = job, cpus
        self.forecaster: BlockForecaster | None = None

    def ready(self) -> None:
        """Return when the worker runs."""

    def run(self, number: int) -> BlockResult:
        if self.forecaster is None:  # not in __init__, where Ray would hide the error's message
            import torch

            torch.set_num_threads(max(1, int(self.cpus)))
            self.forecaster = BlockForecaster(self.job)
        return self.forecaster.run(number)


def _start(ray: Any, job: Job, workers: Workers) -> None:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    else:
        options["include_dashboard"] = False
        if workers.number is not None:
            there = os.cpu_count() or 1
            options["num_cpus"] = max(there, int(-(-workers.number * workers.cpus // 1)))
    # Ray puts the current directory on the workers' import path. There they could find other
    # modules than this process: a checkout of tsllm, or files with the names of modules.
    with contextlib.chdir(job.out):
        try:
            ray.init(**options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise ClusterNotFoundError(
                f"the Ray cluster at RAY_ADDRESS={address} refuses this process ({error}): if it "
                "needs a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
                "as on its other machines"
            ) from error


def _check_reachable(address: str) -> None:
    """Connect to ``host:port``; Ray resolves other forms of an address."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterNotFoundError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}): start one with ray start "
            "--head, correct the address, or unset RAY_ADDRESS to run on this machine alone"
        ) from error


def _slots(resources: dict[str, float], workers: Workers) -> int:
    """Count the workers that the cluster has room for, at least one."""
    room = [resources.get("CPU", 0) / workers.cpus] if workers.cpus else []
    room += [resources.get("GPU", 0) / workers.gpus] if workers.gpus else []
    fit = max(1, int(min(room, default=1)))
    if workers.number is not None and room and workers.number > fit:
        warnings.warn(
            f"the cluster has room for {fit} of {workers.number} workers: the others wait until it "
            "grows",
            UserWarning,
            stacklevel=2,
        )
    return fit if workers.number is None else workers.number
