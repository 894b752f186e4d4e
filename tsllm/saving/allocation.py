"""The model of saved weights, built only if the sizes in the file fit the tensors in the file."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tsllm.backbone import Backbone
from tsllm.errors import ModelFormatError

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# Modules also make tensors that are not saved, such as positions and initial draws, some as large
# as the vocabulary. So a few times the numbers of the saved tensors and the backbone are allowed.
_TIMES, _BACKBONE_TIMES, _EXTRA_NUMBERS, _EXTRA_TENSORS = 8, 4, 2**22, 2000

# Functions that make tensors, by the arguments that tell the size: all of them, the first, or the
# borders of a range.
_BY_SIZE = frozenset(
    {"empty", "zeros", "ones", "rand", "randn", "new_empty", "new_zeros", "new_ones"}
)
_BY_SIZE_FIRST = frozenset({"full", "new_full", "empty_strided"})
_BY_END = frozenset({"arange", "range", "randperm"})


class BoundedAllocation(TorchFunctionMode):
    """Refuse tensors of more numbers than a saved model can need, before they are allocated.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The tensors in the file.
    backbone : Backbone or None
        The language model that the model is built with, which is loaded already.
    """

    def __init__(self, weights: Mapping[str, Tensor], backbone: Backbone | None) -> None:
        super().__init__()
        self._held = sum(tensor.numel() for tensor in weights.values())
        self._numbers = _TIMES * self._held + _EXTRA_NUMBERS
        if backbone is not None:
            self._numbers += _BACKBONE_TIMES * backbone.parameter_count
        self._tensors = _TIMES * len(weights) + _EXTRA_TENSORS

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``; count the numbers that it makes first."""
        kwargs = kwargs or {}
        numbers = _count_numbers(getattr(func, "__name__", ""), args, kwargs)
        # A tensor on the device "meta" takes no memory.
        if numbers is not None and str(kwargs.get("device")) != "meta":
            self._numbers -= numbers
            self._tensors -= 1
            if self._numbers < 0 or self._tensors < 0:
                raise ModelFormatError(
                    "the saved model does not fit its parameters: they name layers that are far "
                    f"larger than the {self._held:,} numbers in model.safetensors; restore its "
                    "config.json, or save the model again"
                )
        return func(*args, **kwargs)


def build_model(
    build: Callable[[], ModuleT], weights: Mapping[str, Tensor], backbone: Backbone | None
) -> ModuleT:
    """Build the model that saved weights belong to, and load them.

    Parameters
    ----------
    build : callable
        Makes the untrained model, with the sizes that the saved model names.
    weights : mapping of str to Tensor
        They must be exactly the model's own.
    backbone : Backbone or None
        The language model that it is built with.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    ModelFormatError
        The model would be far larger than the weights; a tensor is missing, superfluous, of
        another shape, or has numbers that are not finite.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelFormatError(
                f"the tensor {name!r} of the saved model has numbers that are NaN or infinite, so "
                "that every forecast would be NaN: train and save the model again"
            )
    with BoundedAllocation(weights, backbone):
        model = build()
    _load_weights(model, weights)
    return model.eval()


def _load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a model's weights, which must be exactly its own."""
    try:
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, LookupError, ValueError) as error:
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                raise ModelFormatError(
                    f"the saved model does not fit its parameters: the tensor {name!r} should be "
                    f"{own.get(name, 'absent')} and is {found.get(name, 'absent')} in "
                    "model.safetensors"
                ) from error
        raise


def _count_numbers(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Count the numbers of the tensor that a function makes; None for any other function."""
    if name == "clone":  # layers are also made as copies of one
        return int(args[0].numel())
    own = args[1:] if args and isinstance(args[0], Tensor) else args
    if name in _BY_SIZE or name in _BY_SIZE_FIRST:
        size = kwargs.get("size", own)
        if name in _BY_SIZE_FIRST and "size" not in kwargs:
            size = own[:1]
        return _product(size)
    if name == "randint":
        return _product(kwargs.get("size", own[-1:]))
    if name == "eye":
        return _product(own[:2] if len(own) > 1 else own[:1] * 2)
    if name == "linspace":
        return _product(kwargs.get("steps", own[2:3]))
    if name in _BY_END:
        start, end, step = (*((0,) if len(own) == 1 else ()), *own, 1, 1)[:3]
        return abs(math.ceil((kwargs.get("end", end) - start) / (kwargs.get("step", step) or 1)))
    return None


def _product(size: Any) -> int:
    """Multiply sizes, given one by one or as a list."""
    if isinstance(size, int):
        return size
    return math.prod(_product(one) for one in size)
