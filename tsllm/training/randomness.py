"""Random streams that leave torch's global generators as they were."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

# torch's generators belong to the process: one thread at a time may use them.
_GLOBAL_GENERATORS = threading.RLock()


class RandomStream:
    """The state of torch's global generators for one computation.

    Dropout and weight initialisation draw from the global generators only. Inside :meth:`active`
    these hold this stream's state; afterwards the stream keeps its new state, and the generators
    hold what they held before. A process-wide lock separates streams, so each draws what it would
    draw alone. With a CUDA ``device`` the generator of that device belongs to the stream too.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training.randomness import RandomStream
    >>> stream = RandomStream(0)
    >>> with stream.active():
    ...     first = torch.rand(3)
    >>> with stream.active():
    ...     second = torch.rand(3)
    >>> alone = torch.rand(6, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(torch.cat([first, second]), alone)
    True
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._cuda: int | None = None
        self._states = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        if device is not None and device.type == "cuda":
            self._cuda = torch.cuda.current_device() if device.index is None else device.index
            generator = torch.Generator(device=f"cuda:{self._cuda}").manual_seed(seed)
            self._states["cuda"] = generator.get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set the global generators to this stream; other streams wait."""
        devices = [] if self._cuda is None else [self._cuda]
        with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self._states["cpu"])
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._states["cuda"], self._cuda)
            yield
            self._states["cpu"] = torch.get_rng_state()
            if self._cuda is not None:
                self._states["cuda"] = torch.cuda.get_rng_state(self._cuda)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the stream's state, as one uint8 tensor on the CPU per generator."""
        return dict(self._states)

    def load_state_dict(self, states: Mapping[str, Tensor]) -> None:
        """Restore a state of :meth:`state_dict`."""
        self._states = {name: states[name] for name in self._states}


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Set the seed of torch's global generators in a block, and restore them afterwards.

    With a CUDA ``device`` the generator of that device is seeded too.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training.randomness import seeded
    >>> with seeded(1):
    ...     one = torch.nn.Linear(2, 2)
    >>> with seeded(1):
    ...     other = torch.nn.Linear(2, 2)
    >>> torch.equal(one.weight, other.weight)
    True
    """
    with RandomStream(seed, device).active():
        yield
