"""Ablations of PromptTPP: tests of its prompts, its frozen base and its language model."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from tqdm.auto import tqdm

from tsllm.arguments import check_call
from tsllm.backbone.specs import UNNAMED_SEEDS, with_random_weights
from tsllm.errors import DataError
from tsllm.evaluation.paired import check_seeds_and_confidence
from tsllm.events.base import EventForecaster
from tsllm.events.evaluation.ablation_report import (
    GIVEN,
    INDEX,
    METRICS,
    RANDOM,
    EventAblationReport,
    Scored,
    make_event_ablation_report,
)
from tsllm.events.evaluation.continual import (
    LIMITS,
    SlicePart,
    hawkes_like,
    naive_like,
    read_slices,
    split_slice,
    stack_slices,
)
from tsllm.events.prompttpp.estimator import PromptTPP
from tsllm.events.prompttpp.parameters import backbone_name, reads_texts
from tsllm.events.scoring import predictions

EVENT_VARIANTS = ("prompts", "base", "text")
EVENT_BASELINES = ("hawkes", "naive")


class _Variant(NamedTuple):
    """The settings of a variant; ``random`` means other random weights for each seed."""

    settings: dict[str, Any]
    random: bool = False


def ablate(
    estimator: PromptTPP,
    slices: Sequence[Any],
    *,
    variants: Sequence[str] = EVENT_VARIANTS,
    baselines: Sequence[str] = EVENT_BASELINES,
    seeds: Sequence[int] = (0, 1, 2),
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    min_difference: float = 0.01,
    confidence: float = 0.95,
    verbose: int = 0,
) -> EventAblationReport:
    """Measure which parts of PromptTPP help on this stream.

    The estimator learns the slices one after another, and so do variants that differ from it in one
    setting. Then all of them predict the test part of every slice. Differences are paired event by
    event, with intervals over sequences and seeds.

    Parameters
    ----------
    estimator : PromptTPP
        It is cloned.
    slices : sequence of DataFrame, EventTable or path
        At least one, in order of time, for example from `tsllm.datasets.time_slices`.
    variants : sequence of str, default=EVENT_VARIANTS
        The default is all of:

        - "prompts": the other values of ``prompt_mode``; without prompts the network learns on;
        - "base": ``base_update="freeze"`` and ``"full"``, or the other one; needs two slices;
        - "text", where the encoder reads the types' texts: a language model with random weights,
          and types known by their numbers alone.

        A variant that cannot be is left out, and the report gives the reason.
    baselines : sequence of str, default=EVENT_BASELINES
        "hawkes" and "naive", fitted to all slices at once, which a stream does not allow.
    seeds : sequence of int, default=(0, 1, 2)
        Every variant learns once per seed.
    fractions : tuple of float, default=(0.7, 0.1, 0.2)
        Training, validation and test part of each slice.
    min_difference : float, default=0.01
        The least relevant difference, in nats per event.
    confidence : float, default=0.95
        Of the intervals.
    verbose : int, default=0
        1 shows progress on stderr.

    Returns
    -------
    EventAblationReport

    Raises
    ------
    DataError
        The estimator is no PromptTPP, or an argument cannot be used.
    NotEnoughDataError
        A slice is too short to be split.

    See Also
    --------
    tsllm.events.evaluate_stream : Measure learning and forgetting.
    tsllm.ablate : The ablation of forecasters of series.

    Examples
    --------
    >>> from tsllm.datasets import make_hawkes
    >>> from tsllm.events import PromptTPP, ablate
    >>> events = make_hawkes([0.5], [[0.5]], [2.0], t_end=60, n_sequences=4, random_state=0).events
    >>> model = PromptTPP(hidden=8, layers=1, heads=2, components=2, max_epochs=1)
    >>> report = ablate(model, events.split((0.5, 0.5)), variants=["base"], seeds=[0])
    >>> report.table["variant"].tolist()
    ['given', 'allocate, full', 'hawkes', 'naive']
    """
    given = {name: value for name, value in locals().items() if name != "estimator"}
    check_call(ablate, given, LIMITS)
    _check(estimator, variants, baselines, seeds, confidence)
    tables = read_slices(estimator, slices)
    if not tables:
        raise DataError("slices is empty: pass at least one")
    parts = [split_slice(table, fractions, number) for number, table in enumerate(tables)]
    types = sorted({name for table in tables for name in table.type_names})
    planned, left_out = _plan(estimator, variants, n_slices=len(parts))
    scored: dict[str, Scored] = {}
    costs: dict[str, dict[str, float]] = {}
    total = len(planned) * len(seeds) + len(baselines)
    with tqdm(total=total, disable=not verbose, desc="ablation") as progress:
        for name, variant in planned.items():
            runs, spent = [], []
            for seed in seeds:
                model = clone(estimator).set_params(
                    **variant.settings, random_state=seed, checkpoint_dir=None
                )
                if variant.random:
                    spec = str(backbone_name(estimator.encoder, estimator.backbone))
                    model.set_params(backbone=with_random_weights(spec, seed + UNNAMED_SEEDS))
                begun = time.perf_counter()
                for number, part in enumerate(parts):
                    known = types if number == 0 else None
                    model.partial_fit(part.train, validation=part.validation, types=known)
                fitted = time.perf_counter()
                runs.append(_score(model, parts))
                spent.append((fitted - begun, time.perf_counter() - fitted, model.summary()))
                progress.update()
            scored[name] = Scored.of_seeds(runs)
            costs[name] = _mean_costs(spent, scored[name].n_events)
        for name in baselines:
            make = {"hawkes": hawkes_like, "naive": naive_like}[name]
            whole = stack_slices(parts)
            baseline = make(estimator).fit(whole.train, validation=whole.validation, types=types)
            scored[name] = Scored.of_seeds([_score(baseline, parts)])
            progress.update()
    return make_event_ablation_report(
        scored,
        costs,
        left_out,
        {
            "estimator": repr(estimator),
            "slices": len(parts),
            "events": scored[GIVEN].n_events,
            "seeds": [int(seed) for seed in seeds],
            "prompt_mode": estimator.prompt_mode,
            "backbone": backbone_name(estimator.encoder, estimator.backbone),
            "min_difference": min_difference,
            "confidence": confidence,
        },
        controls=_controls(estimator, planned),
    )


def _plan(
    estimator: PromptTPP, wanted: Sequence[str], *, n_slices: int
) -> tuple[dict[str, _Variant], dict[str, str]]:
    """Return the variants, and the reasons of those that cannot be."""
    variants = {GIVEN: _Variant({})}
    left_out = {}
    mode, base = estimator.prompt_mode, estimator.base_update
    if "prompts" in wanted:
        for other in ("allocate", "shared", "none"):
            if other == mode:
                continue
            # Without prompts a frozen network would learn nothing of later slices.
            update = "full" if other == "none" else base
            if other == "shared" and base == "auto":
                update = "freeze"  # what "auto" is there: only "allocate" has a choice
            variants[f"{other}, {update}"] = _Variant({"prompt_mode": other, "base_update": update})
    if "base" in wanted:
        for other in ("freeze", "full"):
            if other == base:
                continue
            name = f"{mode}, {other}"
            if n_slices < 2:
                left_out[name] = "with one slice nothing is learnt after the base"
            elif mode == "none" and other == "freeze":
                left_out[name] = "without prompts a frozen base learns nothing of later slices"
            else:
                variants[name] = _Variant({"base_update": other})
    if "text" in wanted:
        if reads_texts(estimator.encoder):
            reader = estimator.text_encoder if estimator.encoder == "llm" else "attention"
            variants[RANDOM] = _Variant({}, random=True)
            variants[INDEX] = _Variant(
                {
                    "encoder": reader,
                    "text_encoder": "attention",
                    "backbone": None,
                    "backbone_layers": None,
                    "lora": None,
                    "type_text": "{name}",
                }
            )
        else:
            left_out["text"] = f"encoder={estimator.encoder!r} reads no texts"
    return variants, left_out


def _controls(estimator: PromptTPP, planned: Mapping[str, _Variant]) -> dict[str, str]:
    """Return the variants without prompts and without a language model, by question."""
    controls = {}
    if estimator.prompt_mode != "none" and "none, full" in planned:
        controls["prompts"] = "none, full"
    if INDEX in planned:
        controls["text"] = INDEX
    return controls


def _score(model: EventForecaster, parts: Sequence[SlicePart]) -> Scored:
    """Predict the test part of every slice, event by event."""
    rows = []
    for number, part in enumerate(parts):
        border = part.whole.clock.to_stamp(part.test_from)
        measure = partial(predictions, longest=model._longest_inter_event_time())
        _, intervals, measured = model._measure(part.whole, measure, None, border, None)
        log_likelihoods, _, _, medians, types = measured
        seen = intervals.observed
        truth = intervals.end - intervals.start
        losses = [
            log_likelihoods - seen * np.log(model.time_scale_),
            seen * (types.argmax(1) != intervals.code),
            np.where(seen, np.abs(model.time_scale_ * medians - truth), 0.0),
        ]
        names = np.array(part.whole.ids, dtype=object)[intervals.sequence].astype(str)
        rows.append((np.stack(losses), seen, names, intervals.end, np.full(len(seen), number)))
    losses_, seen, names, ends, slices = (np.concatenate(one, axis=-1) for one in zip(*rows))
    assert len(losses_) == len(METRICS)
    return Scored(losses_[None], seen.astype(float), names, ends, slices)


def _mean_costs(
    spent: Sequence[tuple[float, float, dict[str, Any]]], n_events: int
) -> dict[str, float]:
    """Average the costs of a variant over its seeds."""
    fit, predict = (float(np.mean([one[k] for one in spent])) for k in (0, 1))
    summary = spent[0][2]
    return {
        "trained_parameters": float(summary["trained_parameters"]),
        "frozen_parameters": float(summary["frozen_parameters"]),
        "steps": float(np.mean([one[2]["steps"] for one in spent])),
        "fit_seconds": fit,
        "predict_ms": 1000 * predict / n_events,
    }


def _check(
    estimator: Any,
    variants: Sequence[str],
    baselines: Sequence[str],
    seeds: Sequence[int],
    confidence: float,
) -> None:
    """Raise an error for arguments that cannot be used."""
    if not isinstance(estimator, PromptTPP):
        raise DataError(
            f"estimator must be a PromptTPP, found {type(estimator).__name__}: forecasters of "
            "series go to tsllm.ablate"
        )
    for name, values, known in (
        ("variants", variants, EVENT_VARIANTS),
        ("baselines", baselines, EVENT_BASELINES),
    ):
        unknown = [value for value in values if value not in known]
        if unknown:
            raise DataError(f"{name} must be among {', '.join(known)}, found {unknown[0]!r}")
    check_seeds_and_confidence(seeds, confidence)
