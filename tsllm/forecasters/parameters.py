"""The constructor arguments that forecasters share: declared, assigned, documented and checked."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from tsllm.adapters.layers import mirrored
from tsllm.adapters.losses import LOSSES
from tsllm.arguments import (
    Limits,
    check_arguments,
    check_choice,
    check_level_count,
    check_names,
    document_parameters,
    shown,
)
from tsllm.backbone import DEFAULT_BACKBONE
from tsllm.context import Context
from tsllm.embeddings.store import check_store
from tsllm.errors import DataError
from tsllm.forecasters.floors import check_floor
from tsllm.text import check_text_backbone
from tsllm.training.checkpoints import check_resumable

#: The default levels of a quantile head.
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: Most steps of a forecast, and of the history that it reads.
MAX_STEPS = 100_000

_STEPS = Limits(1, MAX_STEPS)
_STEPS_OR_AUTO = Limits(1, MAX_STEPS, words=("auto",))
_WIDTH = Limits(1, 65_536)
_LAYERS = Limits(1, 1_000)
_COUNT = Limits(1, 1_000_000_000)
_RATE = Limits(0, 1e30, whole=False, above=True)
_SHARE = Limits(0, 1, whole=False, below=True)

#: What the numbers among all forecasters' arguments may be, by name.
LIMITS: dict[str, Limits] = {
    "backbone_layers": Limits(1, 1_000, words=("auto",)),
    "context_length": _STEPS_OR_AUTO,
    "prediction_length": _STEPS,
    **dict.fromkeys(("token_length", "in_context_length"), _STEPS_OR_AUTO),
    **dict.fromkeys(("patch_length", "stride", "trend_length", "seasonal_length"), _STEPS_OR_AUTO),
    "kernel_size": _STEPS,
    **dict.fromkeys(("hidden", "mlp_hidden", "channel", "feedforward", "heads"), _WIDTH),
    **dict.fromkeys(("layers", "encoder_layers", "decoder_layers"), _LAYERS),
    "mlp_layers": Limits(0, 1_000),
    **dict.fromkeys(("prompt_length", "soft_prompt_length"), _WIDTH),
    "pool_size": Limits(1, 1_000_000),
    "similarity_coef": Limits(-1_000, 1_000, whole=False),
    **dict.fromkeys(("dropout", "validation_fraction"), _SHARE),
    "update_epochs": Limits(0, 1_000_000_000),
    "max_epochs": Limits(1, 1_000_000_000, words=("auto",)),
    **dict.fromkeys(("batch_size", "patience", "max_steps"), _COUNT),
    "window_stride": Limits(1, 1_000_000_000, words=("auto",)),
    "learning_rate": _RATE,
    "weight_decay": Limits(0, 1_000, whole=False),
    "random_state": Limits(0, 2**32 - 1),
    "n_origins": _STEPS_OR_AUTO,
    "time_limit": Limits(0, whole=False, above=True),
}

#: Type and description of each argument. A class documents only what it has for itself.
SHARED: dict[str, tuple[str, str]] = {
    "backbone": (
        "str or None",
        "The language model: a Hugging Face id, a local directory or GGUF file, or "
        '``"random:..."``. None trains the same forecaster without a language model, as a control.',
    ),
    "backbone_layers": (
        'int, None or "auto"',
        'Use only the first layers. "auto": the first two. They were the most accurate at equal '
        "cost, also in a model with thirty layers. None: all layers.",
    ),
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
        "steps; ``patience`` then grows in proportion. See ``window_stride`` for many windows.",
    ),
    "batch_size": ("int", "Windows of a training step; each variable is a window of its own."),
    "window_stride": (
        'int or "auto"',
        'Steps between training windows. "auto": 1, and with ``max_epochs="auto"`` also a limit of '
        "2,000 training steps, of 500 with a language model (250 in S²IP-LLM), or of ``max_steps`` "
        "if that is more. Where ten passes would take more steps, each epoch draws a tenth of "
        "that number of batches at random, so that the time does not grow with the panel. A stride "
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
        "intervals; at least the horizon, as far as half of a series allows it.",
    ),
    "shrinkage": (
        'bool or "auto"',
        "Combine the model's forecasts with the last value, the seasonal naive forecast and that "
        "with drift, with weights that held-out windows of all series support (not in the papers). "
        "With few windows the model keeps most of the weight; ``summary()`` shows the weights. "
        '"auto": where a typical series has fewer than 300 steps. On longer series the held-out '
        "windows are few beside those that the model learnt from, and shrinkage may harm.",
    ),
    "max_steps": ("int or None", "Stop after this number of training steps."),
    "checkpoint_dir": (
        "path or None",
        "Directory that saves the training of `fit` and `pretrain`. A killed fit continues when it "
        "is run again; other data or parameters are an error. Needs a whole number as "
        "``random_state``. Give each fit its own directory; remove it when the model is saved. "
        "Backtests and ablations train many models, without it.",
    ),
    "floor": (
        'float, None or "auto"',
        'The lowest value of points, quantiles and intervals. "auto": zero for series that stop '
        "there, which are counts and amounts with zeros: they have no negative value and at least "
        "ten others, which are whole numbers or hold two zeros; or they have no negative value "
        "and most series of the fit stop at zero. None: no floor. Set None for a series that may "
        "be negative and has not been yet.",
    ),
    "past_covariates": (
        "tuple of str",
        "Columns of X that are known only up to the last step of y. The other columns must be "
        "given for the steps to forecast.",
    ),
    "text_covariates": (
        "tuple of str",
        "Columns of X that hold text: a report, an announcement, the name of a holiday; any text "
        "in each row, or None. Their texts must be given for the steps to forecast, except those "
        "of columns that are also ``past_covariates``.",
    ),
    "text_backbone": (
        "str",
        "The language model that reads ``text_covariates``, independent of ``backbone``: a Hugging "
        'Face id, a local directory, or ``"random:..."``. ``"tfidf"`` counts words instead.',
    ),
    "embedding_store": (
        "EmbeddingStore, path or None",
        "Where the embeddings of texts are kept. None: in the user's cache folder.",
    ),
    "freq": (
        "str or None",
        'Frequency of the series, for an index that has none; ``"5"`` for integers that step by 5.',
    ),
    "device": ("str", '"auto" uses the GPU if there is one.'),
    "dtype": (
        "str",
        'Precision of the language model. "auto": bfloat16 on a GPU, else float32. "int8" and '
        '"int4" quantise it, on a GPU only.',
    ),
    "random_state": (
        "int, RandomState or None",
        "Seed of the initial weights and of the training: the same seed gives the same result.",
    ),
    "verbose": ("int", "1 shows progress on stderr."),
}


class SharedParameters:
    """Base of the forecasters: it declares, assigns and checks the arguments that they share.

    A method's constructor lists the arguments that its users may set, assigns its own and passes
    ``locals()`` on: sktime reads the arguments off the signature. The shared ones that it does not
    list have the values below.
    """

    context_length: int | str = "auto"
    prediction_length: int | None = None
    loss: str = "mse"
    quantiles: tuple[float, ...] = DECILES
    adaptive: bool = False
    update_epochs: int = 0
    max_epochs: int | str = "auto"
    batch_size: int = 256
    window_stride: int | str = "auto"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 3
    validation_fraction: float = 0.1
    shrinkage: bool | str = "auto"
    max_steps: int | None = None
    checkpoint_dir: str | Path | None = None
    floor: float | str | None = "auto"
    past_covariates: tuple[str, ...] = ()
    text_covariates: tuple[str, ...] = ()
    text_backbone: str = DEFAULT_BACKBONE
    embedding_store: Any = None
    static_attributes: tuple[str, ...] = ()
    freq: str | None = None
    device: str = "auto"
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def __init__(self, arguments: Mapping[str, Any] | None = None) -> None:
        if arguments is None:
            name = type(self).__name__
            raise TypeError(
                f"{name} has no constructor of its own: write one that lists its arguments by "
                "keyword and ends with super().__init__(locals())"
            )
        for name in SHARED.keys() & arguments.keys():
            setattr(self, name, arguments[name])
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            check_names(document_parameters(cls, SHARED))

    def _check_parameters(self) -> None:
        """Check the arguments: their kinds, their limits, and the shared ones together."""
        given = self.get_params(deep=False)  # type: ignore[attr-defined]  # sktime's
        check_arguments(type(self), [*given], given, LIMITS)
        check_choice("loss", self.loss, LOSSES)
        check_floor(self.floor)
        if not isinstance(self.shrinkage, bool) and self.shrinkage != "auto":
            raise DataError(
                f"shrinkage must be True, False or 'auto', found {shown(self.shrinkage)}"
            )
        quantiles = self.quantiles
        if (
            not quantiles
            or any(not 0 < q < 1 for q in quantiles)
            or list(quantiles) != sorted(set(quantiles))
        ):
            raise DataError(
                "quantiles must be rising levels strictly between 0 and 1, found "
                f"{shown(quantiles)}"
            )
        check_level_count(quantiles, "quantiles")
        check_text_backbone(self.text_backbone)
        check_store(self.embedding_store)
        check_resumable(self.checkpoint_dir, self.random_state)

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


def check_horizon(horizon: Any) -> int:
    """Return a number of steps to forecast, from 1 to `MAX_STEPS`."""
    whole = isinstance(horizon, Integral) and not isinstance(horizon, bool)
    if not whole or horizon < 1:
        raise DataError(
            f"horizon must be a whole number of steps, at least 1, found {shown(horizon)}"
        )
    if horizon > MAX_STEPS:
        raise DataError(
            f"a forecast has at most {MAX_STEPS:,} steps, and the horizon is {shown(horizon)}: ask "
            "for fewer, or for series of a lower frequency"
        )
    return int(horizon)


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
