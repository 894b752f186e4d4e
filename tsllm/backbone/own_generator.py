"""Draws of initialisers from a generator of their own."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# By name: transformers swaps the functions of torch.nn.init for its own while it initialises.
_DRAWS = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_")


class OwnGenerator(TorchFunctionMode):
    """Let initialisers draw from a generator of their own, here and in this thread only.

    They know only torch's global generator, which belongs to the caller and to other threads.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, a draw with our generator."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)
