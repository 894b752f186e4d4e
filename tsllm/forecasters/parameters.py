"""The constructor arguments that forecasters share: declared, assigned, documented and checked."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from tsllm.adapters.layers import mirrored
from tsllm.adapters.losses import LOSSES
from tsllm.arguments import check_arguments, document_parameters
from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.training.checkpoints import check_resumable

#: The default levels of a quantile head.
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: The arguments that are only checked against their type hint before they are compared.
TYPED = (
    *("dropout", "quantiles", "learning_rate", "weight_decay", "validation_fraction"),
    *("device", "dtype", "random_state"),
)

#: Type and description of each argument. A class documents only what it has for itself.
SHARED: dict[str, tuple[str, str]] = {
    "backbone": (
        "str or None",
        'The language model: a Hugging Face id, a local directory, or ``"random:..."``. None '
        "trains the same forecaster without a language model, as a control.",
    ),
    "backbone_layers": ("int or None", "Use only the first layers. None uses all."),
    "lora": (
        "dict or None",
        "Fine-tune the language model with LoRA (Hu et al., 2021, 2106.09685), through peft: "
        '``{"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}``. Each entry may be left '
        "out; None means the query and value projections. The adapters belong to this forecaster; "
        "the shared weights never change.",
    ),
    "context_length": (
        'int or "auto"',
        "Steps of history that a forecast reads.",
    ),
    "prediction_length": (
        "int or None",
        "Steps that the model forecasts at once, and that intervals are calibrated for. None: the "
        "``fh`` of `fit`, else a season. Longer horizons are rolled out on the model's own "
        "forecasts.",
    ),
    "flip_invariance": (
        'bool or "auto"',
        "Make the model equivariant to sign flips, forecast(-y) == -forecast(y) (not in the "
        "paper): training flips windows at random, and a forecast averages both readings, which "
        'takes twice the time. "auto": where the series rise and fall alike, each in at least a '
        "third of the windows; such a model cannot learn that a series grows.",
    ),
    "prompt_template": (
        "str",
        "The text, with any of the fields ``{start}``, ``{end}``, ``{values}``, ``{frequency}`` "
        "and ``{trend}``; see `tsllm.prompts.writer.PromptWriter`.",
    ),
    "loss": (
        '{"mse", "mae", "huber", "quantile"}',
        '"quantile" trains a head that forecasts ``quantiles`` without crossing.',
    ),
    "quantiles": ("tuple of float", "Levels of the quantile head."),
    "adaptive": (
        "bool",
        "Keep the calibration of the intervals current in `update`; costs one forecast per update.",
    ),
    "update_epochs": (
        "int",
        "Epochs to train on new data in `update`, and in `fit` after `pretrain`. 0: none.",
    ),
    "max_epochs": (
        'int or "auto"',
        'Passes over the training windows. "auto": ten, or more if ten passes are less than 400 '
        "steps; ``patience`` then grows in proportion.",
    ),
    "batch_size": ("int", "Windows of a training step; each variable is a window of its own."),
    "window_stride": (
        "int",
        "Steps between training windows. More than 1 for long series and costly steps; a stride "
        "that shares a factor with the season misses some of its phases, with a warning.",
    ),
    "learning_rate": (
        "float",
        "First learning rate of Adam; it falls along a cosine over the epochs.",
    ),
    "weight_decay": ("float", "Above 0, AdamW replaces Adam."),
    "patience": ("int", "Epochs without a lower validation loss before training stops."),
    "validation_fraction": (
        "float",
        "Share of each series, at its end, that is held out for early stopping and for calibrating "
        "intervals.",
    ),
    "max_steps": ("int or None", "Stop after this number of training steps."),
    "checkpoint_dir": (
        "path or None",
        "Directory that saves the training of `fit` and `pretrain`. A killed fit continues when it "
        "is run again; other data or parameters are an error. Needs a whole number as "
        "``random_state``. Give each fit its own directory; remove it when the model is saved. "
        "Backtests and ablations train many models, without it.",
    ),
    "past_covariates": (
        "tuple of str",
        "Columns of X that are known only up to the last step of y. The other columns must be "
        "given for the steps to forecast.",
    ),
    "embedding_store": (
        "EmbeddingStore, path or None",
        "Where the embeddings of texts are kept. None: in the user's cache folder.",
    ),
    "freq": ("str or None", "Frequency of the series, for an index that has none."),
    "device": ("str", '"auto" uses the GPU if there is one.'),
    "dtype": (
        "str",
        'Precision of the language model. "auto": bfloat16 on a GPU, else float32.',
    ),
    "random_state": (
        "int, RandomState or None",
        "Seed of the initial weights and of the training: the same seed gives the same result.",
    ),
    "verbose": ("int", "1 shows progress on stderr."),
}


class SharedParameters:
    """Base of the forecasters: it declares, assigns and checks the arguments that they share.

    A method's constructor assigns its own arguments and passes ``locals()`` on, so that its
    signature shows all of them, as sktime requires.
    """

    context_length: int | str
    prediction_length: int | None
    loss: str
    quantiles: tuple[float, ...]
    adaptive: bool
    update_epochs: int
    max_epochs: int | str
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    validation_fraction: float
    max_steps: int | None
    checkpoint_dir: str | Path | None
    past_covariates: tuple[str, ...]
    freq: str | None
    device: str
    random_state: int | np.random.RandomState | None
    verbose: int
    # Arguments of some methods only, and what holds for the others.
    static_attributes: tuple[str, ...] = ()
    window_stride: int = 1

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        for name in SHARED.keys() & arguments.keys():
            setattr(self, name, arguments[name])
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__doc__:
            document_parameters(cls, SHARED)

    def _check_parameters(self) -> None:
        """Check the shared arguments."""
        given = self.get_params(deep=False)  # type: ignore[attr-defined]  # sktime's
        check_arguments(type(self), [*given], {n: given[n] for n in TYPED if n in given})
        check_choice("loss", self.loss, LOSSES)
        quantiles = self.quantiles
        if (
            not quantiles
            or any(not 0 < q < 1 for q in quantiles)
            or list(quantiles) != sorted(set(quantiles))
        ):
            raise DataError(
                f"quantiles must be rising levels strictly between 0 and 1, found {quantiles!r}"
            )
        for name in ("batch_size", "patience", "window_stride"):
            check_whole(name, getattr(self, name))
        for name in ("max_steps", "prediction_length"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        for name in ("context_length", "max_epochs"):
            if getattr(self, name) != "auto":
                check_whole(name, getattr(self, name), or_auto=True)
        check_whole("update_epochs", self.update_epochs, least=0)
        check_resumable(self.checkpoint_dir, self.random_state)
        if not 0 <= self.validation_fraction < 1:
            raise DataError(
                "validation_fraction must be at least 0 and less than 1, found "
                f"{self.validation_fraction!r}"
            )
        if not self.learning_rate > 0:
            raise DataError(f"learning_rate must be above 0, found {self.learning_rate!r}")
        if not self.weight_decay >= 0:
            raise DataError(f"weight_decay must not be negative, found {self.weight_decay!r}")

    def _check_multiple(self, width: str, parts: str) -> None:
        """Check that one argument divides by another; both are given by name."""
        whole, by = getattr(self, width), getattr(self, parts)
        if whole % by:
            raise DataError(f"{width}={whole} must be a multiple of {parts}={by}")

    def _head_levels(self) -> tuple[float, ...]:
        """Return the levels of the quantile head; none for a point forecast."""
        return tuple(self.quantiles) if self.loss == "quantile" else ()

    def _seed(self) -> int:
        """Draw a seed from the random state."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))


# ---------------------------------------------------------------------- checks


def check_whole(name: str, value: Any, *, least: int = 1, or_auto: bool = False) -> None:
    """Check that an argument is a whole number of at least ``least``.

    ``or_auto`` adds "auto" to the message. The `DataError` names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        auto = " or 'auto'" if or_auto else ""
        raise DataError(f"{name} must be a whole number of at least {least}{auto}, found {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that an argument is one of some names; the `DataError` lists them."""
    if value not in choices:
        raise DataError(f"{name} must be one of {', '.join(choices)}, found {value!r}")


# ---------------------------------------------------------------------- flip_invariance="auto"

#: The rarer direction must take at least this share of the windows. Chosen on the parts before the
#: test parts of nine data sets (benchmarks/recipes/flips.yaml).
RARER_SHARE = 1 / 3


def choose_flips(
    flips: bool | str,
    levels: Sequence[float],
    contexts: Sequence[Context],
    *,
    context_length: int,
    target_length: int,
    held_out: float,
) -> bool:
    """Choose whether a model is equivariant to sign flips.

    ``flips`` is the argument ``flip_invariance``, ``levels`` are those of the quantile head. A
    value other than True, False and "auto", or True with levels that do not mirror, raises a
    `DataError`.
    """
    if flips != "auto" and not isinstance(flips, bool):
        raise DataError(f"flip_invariance must be True, False or 'auto', found {flips!r}")
    possible = not levels or mirrored(levels)
    if flips is True and not possible:
        raise DataError(
            "flip_invariance=True needs quantiles that mirror around 0.5, found "
            f"{levels!r}: complete them, or set flip_invariance=False"
        )
    if flips != "auto":
        return bool(flips)
    return possible and rises_and_falls_alike(
        contexts, context_length=context_length, target_length=target_length, held_out=held_out
    )


def rises_and_falls_alike(
    contexts: Sequence[Context], *, context_length: int, target_length: int, held_out: float
) -> bool:
    """Check whether targets lie above their window about as often as below it.

    A model that is equivariant to sign flips cannot learn that a series only grows. On series that
    rise and fall alike it loses nothing by that, and has half as much to learn. Each variable
    counts as a series. Targets do not overlap, and the share ``held_out`` at the end of each series
    is left out. Series that are too short for two windows lead to False.

    Examples
    --------
    >>> import numpy as np
    >>> from tsllm import Context
    >>> sizes = {"context_length": 8, "target_length": 4, "held_out": 0.0}
    >>> steps = np.arange(200.0)
    >>> rises_and_falls_alike([Context(np.sin(steps / 3))], **sizes)
    True
    >>> rises_and_falls_alike([Context(np.sin(steps / 3) + steps)], **sizes)
    False
    """
    rises = falls = 0
    for context in contexts:
        seen = context.values[: round(len(context) * (1 - held_out))]  # (time, variables)
        # Running sums, so that long series of short windows cost no more than others.
        observed = np.isfinite(seen)
        count = np.cumsum(np.pad(observed, ((1, 0), (0, 0))), axis=0)  # (time + 1, variables)
        some = np.where(observed, seen, np.inf).min(axis=0, initial=np.inf)  # (variables,)
        moved = np.where(observed, seen - np.where(np.isfinite(some), some, 0.0), 0.0)
        total = np.cumsum(np.pad(moved, ((1, 0), (0, 0))), axis=0)
        least = 1e-9 * moved.max(axis=0, initial=0.0)  # less than this is rounding, not movement
        ends = np.arange(len(seen), context_length + target_length - 1, -target_length)
        starts = ends - target_length
        with np.errstate(invalid="ignore"):  # NaN where a part has no observation: neither way
            before = _mean(total, count, starts - context_length, starts)  # (windows, variables)
            after = _mean(total, count, starts, ends)
        rises += int((after - before > least).sum())
        falls += int((before - after > least).sum())
    return rises + falls > 1 and min(rises, falls) >= RARER_SHARE * (rises + falls)


def _mean(total: np.ndarray, count: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Average the observations of some spans, from running sums."""
    return (total[last] - total[first]) / (count[last] - count[first])
