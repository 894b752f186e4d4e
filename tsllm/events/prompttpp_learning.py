"""How PromptTPP learns a stream: its first slice, then each next one, without reading earlier ones.

What is trained on a slice, and how, is in `tsllm.events.slice_training`.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from tsllm.datasets.events import EventTable
from tsllm.errors import BackboneMismatchError, DataError
from tsllm.events.gaps import longest_wait
from tsllm.events.prompttpp_core import PromptTPPCore
from tsllm.events.prompttpp_model import embed_classes
from tsllm.events.prompttpp_parameters import (
    FIXED_PARAMETERS,
    check_parameters,
    context_length,
    reads_texts,
)
from tsllm.events.slice_training import learn_slice


class LearnsSlices(PromptTPPCore):
    """The part of `PromptTPP` that learns."""

    def partial_fit(
        self,
        events: Any,
        y: Any = None,
        *,
        types: Any = None,
        windows: Any = None,
        validation: Any = None,
    ) -> Self:
        """Learn the next slice of a stream; nothing earlier is read again.

        On a new estimator this is `fit`.

        Parameters
        ----------
        events : DataFrame, EventTable or path
            The slice, as `fit` takes events.
        y : ignored
            For scikit-learn's pipelines.
        types : sequence of str, optional
            Only at the first call: types that later slices will bring, beside those of this one.
        windows : optional
            See `fit`.
        validation : as events, optional
            Later events of the same sequences, for early stopping. None takes the last
            ``validation_fraction`` of the slice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            As in `fit`; or a new type without ``grow_types=True``, or settings under which nothing
            would be learnt.

        Warns
        -----
        UserWarning
            The pool of prompts is full: what was merged or re-used.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(events, windows=windows, validation=validation, types=types)
        if types is not None:
            raise DataError("types belongs to the first call: use grow_types=True for new ones")
        self._check_goes_on()
        table = self._read(events, windows=windows)
        held_back = None if validation is None else self._read(validation)
        whole = table if held_back is None else table.extend(held_back)
        # A slice that fails to be learnt leaves the estimator as it was.
        former, classes = self.model_, self.classes_
        self.model_ = copy.deepcopy(former)
        try:
            self._meet_types(whole)
            self._learn(table, held_back)
        except BaseException:
            self.model_, self.classes_ = former, classes
            raise
        self.n_events_ += whole.n_events
        self._describe(whole)
        self._remember(whole)
        return self

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        check_parameters(self)
        self._running = None
        self.architecture_ = {name: getattr(self, name) for name in FIXED_PARAMETERS}
        self.seed_ = self._seed()
        self.n_slices_ = 0
        self.slices_ = []
        gaps = np.concatenate([np.diff(times) for times in table.times])
        typical = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else self.time_scale_
        self.median_scaled_gap_ = typical / self.time_scale_
        backbone = self._load_backbone()
        self.context_length_ = context_length(self, backbone)
        self.backbone_digest_ = None if backbone is None else backbone.digest
        self.text_width_, vectors = None, None
        if reads_texts(self):
            vectors = embed_classes(self, self.classes_)
            self.text_width_ = vectors.shape[1]
        self.model_ = self._build_model(vectors)
        self._learn(table, validation)

    def _learn(self, table: EventTable, validation: EventTable | None) -> None:
        """Train on a slice, and note what came of it."""
        record, uses = learn_slice(self, table, validation)
        width = max(self.model_.pool.max_slots if self.prompt_mode == "shared" else 0, len(uses))
        former = getattr(self, "slot_history_", np.zeros((0, 0), dtype=np.int64))
        rows = [np.pad(row, (0, width - len(row))) for row in [*former, uses]]
        self.slot_history_ = np.stack(rows)
        self.prompt_usage_ = np.array(self.model_.pool.usage, dtype=np.int64)
        self.slices_ = [*self.slices_, record]
        shown = [longest_wait(part) for part in (table, validation) if part is not None]
        self.longest_wait_ = max(getattr(self, "longest_wait_", 0.0), *shown)
        self.n_slices_ += 1
        self._running = None  # the states of another model

    def _meet_types(self, table: EventTable) -> None:
        """Make room for types that come up for the first time."""
        new = [name for name in table.type_names if name not in set(self.classes_)]
        if not new or not self.grow_types:
            return  # unknown types are refused where they are read
        vectors = embed_classes(self, new) if self.text_width_ is not None else None
        self.classes_ = np.append(self.classes_, np.array(new, dtype=object))
        self.model_.grow_types(len(self.classes_), vectors)

    def _check_goes_on(self) -> None:
        """Refuse settings that no longer fit the model."""
        check_parameters(self)
        for name, value in self.architecture_.items():
            if getattr(self, name) != value:
                raise DataError(
                    f"{name} was {value!r} when the model was made and is {getattr(self, name)!r} "
                    "now: set it back, or begin anew with fit"
                )
        backbone = self._load_backbone()
        if backbone is not None and backbone.digest != self.backbone_digest_:
            raise BackboneMismatchError(
                f"backbone={self.backbone!r} has other weights than the one that the model was "
                "made with: set it back, or begin anew with fit"
            )

    def _fine_tuned(self) -> Self:
        tuned: Self = clone(self).set_params(prompt_mode="none", base_update="full")
        return tuned
