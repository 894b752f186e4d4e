"""The variants of an ablation: a forecaster with its language model replaced."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from tsllm.backbone.replacement import LAYER_PREFIX
from tsllm.backbone.specs import UNNAMED_SEEDS, with_random_weights
from tsllm.context import Context
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout
from tsllm.evaluation.methods import GlobalMethod, Method
from tsllm.forecasters.language_model import LLMForecaster

PRETRAINED, NONE = "pretrained", "none"
#: The replacements of the language model, besides "none", which always runs.
REPLACEMENTS = ("random", "attention", "transformer")
#: The conditions under which "pretrained" and "none" run again.
CONDITIONS = ("shuffled", "few")
VARIANTS = (*REPLACEMENTS, *CONDITIONS)
#: Parameters that each variant chooses by itself: the value as published, and the one that
#: chooses on the variant's own validation part.
OWN_CHOICES = {"loss_on": ("all", "auto")}
#: The share of the steps before the test part in the condition "few".
FEW_SHARE = 0.1
#: The fewest steps to train on.
_FEWEST_STEPS = 8


class Variants(NamedTuple):
    """The methods of an ablation."""

    methods: dict[str, Method]
    left_out: dict[str, str]  # variant to reason
    notes: list[str]


def make_variants(
    estimator: LLMForecaster,
    holdout: Holdout,
    longest: int,
    wanted: Sequence[str],
    *,
    as_given: bool = False,
) -> Variants:
    """Make the variants of a forecaster, the forecaster itself first.

    ``wanted`` are names of `VARIANTS`; "pretrained" and "none" are always made. Unless
    ``as_given``, each variant chooses the parameters of `OWN_CHOICES` that have their published
    value.
    """
    _check(estimator, wanted)
    if not as_given:
        given = estimator.get_params()
        own = {
            name: chooses
            for name, (published, chooses) in OWN_CHOICES.items()
            if given.get(name) == published
        }
        estimator = estimator.clone().set_params(**own) if own else estimator
    backbone = str(estimator.backbone)  # not None, as checked
    left_out: dict[str, str] = {}
    notes = []
    pretrained = VariantMethod(estimator, holdout, longest)
    methods: dict[str, Method] = {PRETRAINED: pretrained}
    if "random" in wanted:
        methods["random"] = VariantMethod(
            estimator,
            holdout,
            longest,
            by_seed=lambda seed: {"backbone": with_random_weights(backbone, seed + UNNAMED_SEEDS)},
        )
    off = estimator._needs_language_model()
    for kind in ("attention", "transformer"):
        if kind not in wanted:
            continue
        if not estimator._runs_backbone:
            left_out[kind] = (
                f"{type(estimator).__name__} reads embeddings that are computed once, which a "
                "layer that is trained would leave behind"
            )
            continue
        layer = f"{LAYER_PREFIX}{kind}?like={backbone}"
        changed = estimator.clone().set_params(backbone=layer, backbone_layers=None, **off)
        methods[kind] = VariantMethod(changed, holdout, longest)
    without = estimator.clone().set_params(backbone=None, backbone_layers=None, **off)
    methods[NONE] = none = VariantMethod(without, holdout, longest)
    if off:
        controls = [variant for variant in methods if variant not in (PRETRAINED, "random")]
        settings = ", ".join(f"{name}={value!r}" for name, value in off.items())
        notes.append(
            f"{' and '.join(controls)} run with {settings}, which only a language model can serve"
        )
    pairs = ((PRETRAINED, pretrained), (NONE, none))
    if "shuffled" in wanted:
        methods |= {
            f"{name}, shuffled": ShuffledMethod(variant, holdout) for name, variant in pairs
        }
        notes.append(
            "shuffled: the same fitted models forecast from contexts whose last context_length "
            "steps stand in random order"
        )
    if "few" in wanted:
        least = int(min(round(FEW_SHARE * border) for border in holdout.borders))
        if least < _FEWEST_STEPS:
            left_out["few"] = (
                f"a tenth of the shortest series before its test part is {least} steps, "
                f"and less than {_FEWEST_STEPS} are too few to train on"
            )
        else:
            methods |= {
                f"{name}, 10 %": VariantMethod(
                    variant.template, holdout, longest, share=FEW_SHARE, shape_of=variant
                )
                for name, variant in pairs
            }
            notes.append(
                "10 %: trained on the last tenth of the steps before the test part, with the sizes "
                "that the whole part led to"
            )
    return Variants(methods, left_out, notes)


class VariantMethod(GlobalMethod):
    """A forecaster that keeps its fitted model of every seed, and the cost of each fit.

    ``by_seed`` returns parameters that depend on the seed. ``share`` is the last share of the steps
    before the test part, to fit on. With ``shape_of`` the fitted sizes of that method are used.
    """

    def __init__(
        self,
        template: LLMForecaster,
        holdout: Holdout,
        longest: int,
        *,
        by_seed: Callable[[int], Mapping[str, Any]] | None = None,
        share: float = 1.0,
        shape_of: "VariantMethod | None" = None,
    ) -> None:
        super().__init__(template, holdout, longest, X=holdout.X)
        self.template = template
        self.fitted: dict[int | None, LLMForecaster] = {}
        self._by_seed = by_seed
        self._share = share
        self._shape_of = shape_of
        self._peak: float | None = None

    def expected_seconds(self, ends: np.ndarray, seed: int | None) -> float | None:
        """Return None: a variant may need the fitted sizes of another one."""
        return None

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit a clone on the share of the steps."""
        parameters = dict(self._by_seed(seed or 0)) if self._by_seed is not None else {}
        if self._shape_of is not None:
            shape = self._shape_of.fitted[seed].fitted_.shape
            sizes = {"context_length": shape.context_length, **shape.extra}
            parameters |= {k: v for k, v in sizes.items() if k in self.template.get_params()}
        y = self._holdout.before(ends, share=self._share)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._fitted = self.fitted[seed] = self._fit_clone(y, seed, parameters)
        self._note_memory()

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast from all steps before each origin."""
        out = super().forecast(series, origins, horizon, levels)
        self._note_memory()
        return out

    def costs(self) -> dict[str, float]:
        """Return parameters, memory of the weights and steps, as means over the seeds."""
        rows = []
        for fitted in self.fitted.values():
            summary = fitted.summary()
            backbone = fitted.fitted_.backbone
            frozen_bytes = 0 if backbone is None else backbone.weight_bytes
            trained, frozen = summary["trained_parameters"], summary["frozen_parameters"]
            rows.append(
                {
                    "trained_parameters": trained,
                    "frozen_parameters": frozen,
                    "weights_mib": (4 * trained + frozen_bytes) / 2**20,
                    "steps": summary["steps"],
                    "epochs": summary["epochs"],
                }
            )
        found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        # On a CPU all variants share one allocator, so their peaks are unknown.
        return found | ({} if self._peak is None else {"peak_gpu_mib": self._peak})

    def choices(self) -> dict[str, list[str]]:
        """Return what the models of all seeds chose of `OWN_CHOICES`; with ``shape_of`` nothing."""
        if self._shape_of is not None:
            return {}
        given = self.template.get_params()
        return {
            name: [str(fitted.summary()[name]) for fitted in self.fitted.values()]
            for name, (_, chooses) in OWN_CHOICES.items()
            if given.get(name) == chooses
        }

    def _note_memory(self) -> None:
        """Record the peak of torch's GPU memory since the fit began."""
        device = self._fitted.fitted_.device
        if device.type == "cuda":
            most = torch.cuda.max_memory_allocated(device) / 2**20
            self._peak = max(self._peak or 0.0, most)


class ShuffledMethod:
    """A fitted variant that reads the steps of its contexts in random order.

    The order depends on series and origin only, so that all variants read the same.
    """

    refits_per_window = False
    windows_at_once = 1

    def __init__(self, variant: VariantMethod, holdout: Holdout) -> None:
        self.takes_seed = variant.takes_seed
        self._variant = variant
        self._holdout = holdout
        self._fitted: Any = None

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Use the variant's fitted model of that seed."""
        self._fitted = self._variant.fitted[seed]

    def forecast(
        self, series: np.ndarray, origins: np.ndarray, horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast from shuffled contexts."""
        steps = self._fitted.fitted_.shape.context_length
        contexts = [
            _shuffled(context, steps, (int(i), int(o)))
            for context, i, o in zip(self._variant.contexts(series, origins), series, origins)
        ]
        out: np.ndarray = self._fitted.forecast(
            contexts,
            horizon,
            quantiles=tuple(levels),
            future_x=self._variant.known_future(series, origins, horizon),
        )
        return out

    def describe(self) -> dict[str, Any]:
        """Describe the variant."""
        return self._variant.describe()


def _check(estimator: Any, wanted: Sequence[str]) -> None:
    """Raise an error for unknown variants and for estimators without a language model."""
    unknown = [variant for variant in wanted if variant not in VARIANTS]
    if unknown:
        raise DataError(
            f"variants must be among {', '.join(VARIANTS)}, found {unknown[0]!r}; 'pretrained' and "
            "'none' always run"
        )
    if not isinstance(estimator, LLMForecaster):
        raise DataError(
            f"estimator must be a tsllm forecaster with a language model, found "
            f"{type(estimator).__name__}: compare other forecasters with tsllm.backtest, and give "
            "forecasters of events to tsllm.events.ablate"
        )
    if estimator.backbone is None or estimator.backbone.startswith(LAYER_PREFIX):
        raise DataError(
            f"estimator has backbone={estimator.backbone!r}, so there is no language model to "
            "judge: set backbone to one"
        )


def _shuffled(context: Context, steps: int, key: tuple[int, int]) -> Context:
    """Shuffle the last steps of a context with their covariates; stamps stay."""
    rows = np.arange(len(context))
    rows[-steps:] = np.random.default_rng(key).permutation(rows[-steps:])
    x = context.past_x
    return replace(
        context,
        values=context.values[rows],
        mask=None,  # type: ignore[arg-type]
        past_x=None if x is None else x[rows],
    )
