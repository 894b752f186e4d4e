"""Blocks forecast by Ray's actors, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tsllm.batch.worker import BlockForecaster, BlockResult, Job
from tsllm.errors import ClusterNotFoundError, WorkerDiedError

#: How often a block is tried whose worker died.
_TRIES = 4
#: Seconds that a cluster has to answer; Ray itself would try for minutes.
_PATIENCE = 10


@dataclass(frozen=True)
class Workers:
    """How many actors there are and what each needs.

    Attributes
    ----------
    number : int, optional
        None: as many as the cluster has room for.
    cpus, gpus : float
        Of each; torch computes with as many threads as a worker has processors.
    """

    number: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def run_on_ray(job: Job, numbers: Sequence[int], workers: Workers) -> Iterator[BlockResult]:
    """Forecast blocks on Ray and yield each when it is written.

    ``RAY_ADDRESS`` names the cluster; without it Ray is started on this machine, and stopped at the
    end. A worker that dies is started again and its block tried again; what others have written
    stands. On a cluster, model, data and output lie on a file system that all nodes see, and tsllm
    is installed on each.

    Parameters
    ----------
    job : Job
    numbers : sequence of int
        The blocks.
    workers : Workers

    Yields
    ------
    BlockResult
        In the order in which they are done.

    Raises
    ------
    ImportError
        Ray is not installed.
    ClusterNotFoundError
        Nothing answers at ``RAY_ADDRESS``, or it turns this process away.
    WorkerDiedError
        A block could not be forecast, for its workers died.
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
        actor = ray.remote(
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            max_restarts=-1,
            max_task_retries=_TRIES - 1,
        )(_Worker)
        slots = _slots(ray.cluster_resources(), workers)
        actors = [actor.remote(job, workers.cpus) for _ in range(min(slots, len(numbers)))]
        waiting = list(reversed(numbers))
        running = {one.run.remote(waiting.pop()): one for one in actors}
        while running:
            (done, *_), _ = ray.wait(list(running))
            idle = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # ours, with its own sentence
            except ray.exceptions.RayActorError as error:
                raise WorkerDiedError(
                    f"a worker died {_TRIES} times on one block: give each more memory, with "
                    "fewer workers or a smaller batch_size, and start the job again, which goes on "
                    "where it is"
                ) from error
            if waiting:
                running[idle.run.remote(waiting.pop())] = idle
            yield result
    finally:
        for one in actors:
            ray.kill(one)
        if ours:
            ray.shutdown()


class _Worker:
    """An actor: the model, loaded once from its path, and nothing of the driver's."""

    def __init__(self, job: Job, cpus: float) -> None:
        self.job, self.cpus = job, cpus
        self.forecaster: BlockForecaster | None = None

    def run(self, number: int) -> BlockResult:
        if self.forecaster is None:  # here, where what goes wrong is told in its own sentence
            import torch

            torch.set_num_threads(max(1, int(self.cpus)))
            self.forecaster = BlockForecaster(self.job)
        return self.forecaster.run(number)


def _start(ray: Any, job: Job, workers: Workers) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray here."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    else:
        options["include_dashboard"] = False
        if workers.number is not None:
            there = os.cpu_count() or 1
            options["num_cpus"] = max(there, int(-(-workers.number * workers.cpus // 1)))
    # Ray puts the current directory on the workers' import path: in a checkout of tsllm, or where
    # a file has the name of a module, they would import other things than this process did.
    with contextlib.chdir(job.out):
        try:
            ray.init(**options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise ClusterNotFoundError(
                f"the Ray cluster at RAY_ADDRESS={address} does not let this process in ({error}): "
                "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH as on its other machines"
            ) from error


def _check_reachable(address: str) -> None:
    """Try to reach ``host:port``; other forms of an address are Ray's to resolve."""
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
    """Count the workers that the cluster has room for, one at least: that one waits for it."""
    room = [resources.get("CPU", 0) / workers.cpus] if workers.cpus else []
    room += [resources.get("GPU", 0) / workers.gpus] if workers.gpus else []
    fit = max(1, int(min(room, default=1)))
    if workers.number is not None and room and workers.number > fit:
        warnings.warn(
            f"{workers.number} workers are asked for and the cluster has room for {fit}: the "
            "others wait until it grows",
            UserWarning,
            stacklevel=2,
        )
    return fit if workers.number is None else workers.number
