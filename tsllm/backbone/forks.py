"""Forked processes: the threads of torch do not survive a fork, and work that needs them hangs."""

import os
import warnings

import torch

# Whether this process, or one that it was forked from, has computed with several threads.
_has_computed = False
# Whether it was forked since.
_is_forked = False


def limit_threads_after_fork() -> None:
    """Set one thread in a process that was forked from one with several.

    It is called before a model runs.

    Warns
    -----
    UserWarning
        The process was forked after its parent had computed with several threads. It computes with
        one thread from now on.
    """
    global _has_computed, _is_forked
    threads = torch.get_num_threads()
    if threads > 1 and _is_forked:
        torch.set_num_threads(1)
        warnings.warn(
            f"this process was forked after torch had computed with {threads} threads, which do "
            "not survive a fork: it computes with one thread; start processes with "
            "multiprocessing's method 'spawn' to use more, or set OMP_NUM_THREADS=1",
            stacklevel=3,
        )
    _has_computed, _is_forked = _has_computed or threads > 1, False


def _note_fork() -> None:
    """Note in a forked child that the threads of its parent are gone."""
    global _is_forked
    _is_forked = _has_computed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
