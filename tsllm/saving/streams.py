"""What a saved stream holds: the fitted forecaster inside, and what the stream has read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from tsllm.errors import DataError


class SavedStream(ABC):
    """A stream that `tsllm.save` writes; streams of series and of events inherit from it."""

    _forecaster: Any
    made_of: str | None

    @abstractmethod
    def _read_so_far(self) -> dict[str, Any]:
        """Return what the stream keeps of its observations, as plain values, arrays and tensors."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Put the output of `_read_so_far` into a stream without observations."""

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Return the arguments of the constructor, which `tsllm.save` writes.

        Parameters
        ----------
        deep : bool, default=False
            Not used.

        Returns
        -------
        dict
        """
        return {"forecaster": self._forecaster}

    def to_state(self, *, include_context: bool = True) -> dict[str, Any]:
        """Return everything but the parameters as plain values, arrays and tensors.

        Parameters
        ----------
        include_context : bool, default=True
            Has to be True: a stream is its context.

        Returns
        -------
        dict
            For `tsllm.save`; see `from_state`.

        Raises
        ------
        DataError
            ``include_context`` is False.
        """
        if not include_context:
            raise DataError("a stream cannot be saved without its context: leave the argument out")
        inner = self._forecaster.to_state(include_context=False)
        shared = {"backbone": inner["backbone"], "forecaster": inner, "made_of": self.made_of}
        return shared | self._read_so_far()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], parameters: Mapping[str, Any]) -> Self:
        """Build a stream from the output of `to_state`.

        Parameters
        ----------
        state : mapping
            The output of `to_state`.
        parameters : mapping
            The constructor's arguments; the forecaster is not fitted.

        Returns
        -------
        stream

        Raises
        ------
        ModelFormatError
            Parts that do not belong together.
        """
        unfitted = parameters["forecaster"]
        forecaster = type(unfitted).from_state(state["forecaster"], unfitted.get_params(deep=False))
        stream = cls(**{**parameters, "forecaster": forecaster})
        stream.made_of = state["made_of"]
        stream._restore(state)
        return stream
