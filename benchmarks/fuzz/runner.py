"""The runner: cases in worker processes, so that one that hangs or dies ends only its worker."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import psutil

from fuzz.cases import Outcome, attacks_of, run_case

#: Seconds of the processor that a case may take; of the clock it may take more, for other
#: processes may keep the processors busy.
LIMIT, PATIENCE = 20.0, 8
#: Bytes that a worker may allocate, and those with which it is replaced after a case.
MEMORY, MEMORY_KEPT = 4 << 30, 1 << 30


class Job(NamedTuple):
    """The address of a case."""

    door: str
    number: int
    seed: int


@dataclass
class Worker:
    """A process that runs one case after the other."""

    process: Any
    connection: Connection
    job: Job | None = None
    begun: float = 0.0
    #: Seconds of the processor that the process had taken before the case.
    taken: float = 0.0


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int = 2,
    limit: float = LIMIT,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run cases in worker processes and return their outcomes.

    Parameters
    ----------
    jobs : iterable of Job
        The cases.
    workers : int, default=2
        Number of processes.
    limit : float, default=20.0
        Seconds of the processor that a case may take.
    report : callable
        Called with each outcome as it comes.

    Returns
    -------
    list of Outcome
        In the order in which the cases ended.
    """
    waiting = iter(jobs)
    outcomes: list[Outcome] = []
    staff = [_hire() for _ in range(workers)]
    try:
        staff = [worker for worker in staff if _give(worker, waiting)]
        while staff:
            wait([worker.connection for worker in staff], timeout=0.2)
            for place, worker in enumerate(list(staff)):
                outcome = _collect(worker, limit)
                if outcome is None:
                    continue
                outcomes.append(outcome)
                report(outcome)
                if _is_spent(worker):
                    staff[place] = _hire()
            staff = [worker for worker in staff if worker.job or _give(worker, waiting)]
    finally:
        for worker in staff:
            worker.process.kill()
    return outcomes


def _hire() -> Worker:
    """Start a worker from a process that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fuzz.shared"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _give(worker: Worker, waiting: Iterator[Job]) -> bool:
    """Give a worker its next case; without one, let it go and return False."""
    worker.job = next(waiting, None)
    if worker.job is None:
        worker.process.kill()
        return False
    worker.begun, worker.taken = time.monotonic(), _processor_seconds(worker)
    worker.connection.send(worker.job)
    return True


def _is_spent(worker: Worker) -> bool:
    """Return True for a worker that is dead, or whose memory a case has used up."""
    try:
        spent = psutil.Process(worker.process.pid).memory_info().rss > MEMORY_KEPT
    except psutil.NoSuchProcess:
        return True
    if spent:
        worker.process.kill()
    return spent or not worker.process.is_alive()


def _collect(worker: Worker, limit: float) -> Outcome | None:
    """Return the outcome of a worker's case; None while it runs."""
    job, fault = worker.job, None
    assert job is not None
    clock = time.monotonic() - worker.begun
    try:
        if worker.connection.poll():
            worker.job = None
            outcome: Outcome = worker.connection.recv()
            return outcome
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode
        fault = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if fault is None:
        used = _processor_seconds(worker) - worker.taken
        if used < limit and clock < PATIENCE * limit:
            return None
        fault = f"stopped after {clock:.0f} s, {used:.0f} s of the processor"
        worker.process.kill()
        worker.process.join()
    worker.job = None
    attacks = attacks_of(job.door)
    name = attacks[job.number % len(attacks)].__name__
    return Outcome(f"{job.door}:{job.number}", name, "", "hang", fault, round(clock, 2))


def _processor_seconds(worker: Worker) -> float:
    try:
        times = psutil.Process(worker.process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _work(connection: Connection) -> None:
    """Run the cases that come, without output."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 (for the life of the process)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(run_case(*job))
