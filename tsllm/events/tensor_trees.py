"""States of models as trees: tensors in nested tuples and dataclasses."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested tuples and dataclasses, in order."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple):
        parts = [map_tensors(part, change) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if is_dataclass(tree) and not isinstance(tree, type):
        named = {one.name: map_tensors(getattr(tree, one.name), change) for one in fields(tree)}
        return replace(tree, **named)
    return tree


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """List the tensors of nested tuples and dataclasses, in the order of `map_tensors`."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(tree, note)
    return iter(found)


def join_trees(*trees: Any) -> Any:
    """Concatenate trees of the same form along the first axis of their tensors."""
    parts = zip(*map(tensors_of, trees), strict=True)
    return map_tensors(trees[0], lambda _: torch.cat(next(parts)))
