"""One sentence for files that this version of tsllm did not write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from tsllm.errors import DataError, ModelFormatError, TsllmError


@contextmanager
def readable(*, holds_data: bool = False) -> Iterator[None]:
    """Replace the errors of reading foreign or damaged files by one sentence.

    Parameters
    ----------
    holds_data : bool, default=False
        Whether the block reads users' data from the files, so that a `DataError` is the files'
        fault as well.

    Raises
    ------
    ModelFormatError
        In place of any error but tsllm's own.
    """
    try:
        yield
    except Exception as error:  # a changed file can end in any of them
        own = isinstance(error, TsllmError)
        if own and not (holds_data and isinstance(error, DataError)):
            raise
        problem = str(error) if own else f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelFormatError(
            f"the saved model's files do not belong together ({problem[:500]}): load the model "
            "with the version of tsllm that saved it, or save it again"
        ) from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a model's weights, which must be exactly its own.

    Raises
    ------
    ModelFormatError
        A tensor is missing, superfluous, or of another shape.
    """
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
