"""The ablation: a test of the language model, or of texts, against replacements on given data."""

from collections.abc import Sequence
from typing import Any

from tsllm.arguments import check_call, check_choice
from tsllm.datasets.indexed import index_tables
from tsllm.evaluation.ablation_report import AblationReport, make_ablation_report
from tsllm.evaluation.paired import check_seeds_and_confidence
from tsllm.evaluation.protocol import LIMITS, make_plan, run_methods
from tsllm.evaluation.scoring import POINT_METRICS
from tsllm.evaluation.text_report import make_text_report
from tsllm.evaluation.text_variants import TEXT_VARIANTS, make_text_variants
from tsllm.evaluation.variants import VARIANTS, make_variants

ABLATION_BASELINES = ("seasonal_naive", "auto_ets", "dlinear")


def ablate(
    estimator: Any,
    y: Any,
    X: Any = None,
    *,
    horizons: int | Sequence[int],
    text: str | Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    baselines: Sequence[str] = ABLATION_BASELINES,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str = "mse",
    min_difference: float = 0.01,
    confidence: float = 0.95,
    as_given: bool = False,
    test_size: int | None = None,
    test_fraction: float | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    stride: int = 1,
    scaled: bool = True,
    season: int | None = None,
    max_windows: int | None = 20,
    max_history: int | None = 512,
    freq: str | None = None,
    progress: bool = False,
) -> AblationReport:
    """Measure whether the language model helps on this data, or a replacement does as well.

    The forecaster is fitted as it is, and again with the language model replaced, with the same
    head, data, seeds and budget; each chooses its loss by itself. All variants forecast the same
    windows of an unseen test part by the protocol of `tsllm.backtest`. The verdict rests on paired
    differences with intervals over windows and seeds.

    With ``text`` the question is another one: whether these columns of X help, and whether the
    language model that reads them does. The language model that reads the series, if any, stays.

    Parameters
    ----------
    estimator : forecaster
        `AutoTimesForecaster`, `TimeCMAForecaster`, `S2IPForecaster` or `AarenForecaster`, with a
        backbone. With ``text`` any forecaster of tsllm that reads text, such as
        `AutoForecaster` or `TextContext`, which adds text to a forecaster of sktime. It is cloned.
    y : Series, DataFrame, or table of polars or Arrow
        As for `tsllm.backtest`.
    X : DataFrame or None, default=None
        Covariates, as for `tsllm.backtest`; every variant reads them.
    horizons : int or sequence of int
        Steps.
    text : str, sequence of str or None, default=None
        The columns of X that hold the texts to judge; they take the place of the estimator's
        ``text_covariates``. None: the ablation is about the language model that reads the series.
    variants : sequence of str or None, default=None
        The variants besides "pretrained", the forecaster as it is, and "none", the same without a
        language model. None takes all of:

        - "random": the same architecture with random weights, others for each seed;
        - "attention", "transformer": one attention layer or one transformer block of the same
          width in its place, trained with the head;
        - "shuffled": the fitted "pretrained" and "none" read their contexts in random order;
        - "few": "pretrained" and "none" with a tenth of the data.

        With ``text``, "none" is the same without the texts, and None takes all of:

        - "shuffled": the texts of each series in random order, in training and test;
        - "past": the texts are known up to the origin of a forecast only;
        - "tfidf": a bag of words reads the texts;
        - "random": the language model that reads them has random weights, others for each seed.

        A variant that the method cannot have is left out, and the report gives the reason.
    baselines : sequence of str, default=ABLATION_BASELINES
        Names as for `tsllm.backtest`. The default is "seasonal_naive", "auto_ets" and "dlinear".
    seeds : sequence of int, default=(0, 1, 2)
        Every variant is trained once per seed. With one, the intervals cover the windows only.
    metric : {"mse", "mae", "mase", "smape"}, default="mse"
        The error that the verdict is about.
    min_difference : float, default=0.01
        The least relevant difference, as a share of the error of "pretrained".
    confidence : float, default=0.95
        Of the intervals.
    as_given : bool, default=False
        Whether all variants have the estimator's parameters. False: each variant is compared at its
        own best, so it also chooses by its own validation loss what suits a model with or without a
        language model. This is AutoTimes' ``loss_on``, where it is "all", and takes twice the time
        to train. The notes say what was chosen. With ``text`` all variants have them.
    test_size, train_size, validation_size : int or None, default=None
        See `tsllm.backtest`.
    test_fraction : float or None, default=None
        See `tsllm.backtest`.
    stride : int, default=1
        See `tsllm.backtest`.
    scaled : bool, default=True
        See `tsllm.backtest`. On by default, so that series and variables have equal weight.
    season : int or None, default=None
        See `tsllm.backtest`.
    max_windows : int or None, default=20
        See `tsllm.backtest`.
    max_history : int or None, default=512
        See `tsllm.backtest`.
    freq : str or None, default=None
        See `tsllm.backtest`.
    progress : bool, default=False
        See `tsllm.backtest`.

    Returns
    -------
    AblationReport

    Raises
    ------
    DataError
        The estimator has no language model, arguments contradict each other, or the series are too
        short for them.

    See Also
    --------
    tsllm.backtest : Compare forecasters.
    tsllm.events.ablate : The ablation of PromptTPP.

    References
    ----------
    M. Tan et al. (2024), "Are Language Models Actually Useful for Time Series Forecasting?",
    arXiv 2406.16964, sections 3 and 4.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AutoTimesForecaster, ablate
    >>> forecaster = AutoTimesForecaster("random:gpt2?hidden=8&layers=1&heads=2", max_steps=3)
    >>> report = ablate(
    ...     forecaster,
    ...     load_airline(),
    ...     horizons=3,
    ...     variants=["random"],
    ...     baselines=["seasonal_naive"],
    ... )
    >>> report.table["variant"].unique().tolist()
    ['pretrained', 'random', 'none', 'seasonal_naive']
    >>> report.answer in ("yes", "architecture", "unclear", "undecided", "no", "harm")
    True

    Or the texts of a column, with answers of `tsllm.evaluation.text_verdict.TEXT_ANSWERS`:

    >>> report = ablate(forecaster, y, X, text="report", horizons=8)  # doctest: +SKIP
    """
    check_call(ablate, locals(), LIMITS)
    y, X = index_tables(y, X)
    check_seeds_and_confidence(seeds, confidence)
    check_choice("metric", metric, POINT_METRICS)
    metrics = list(dict.fromkeys([metric, "mse", "mae"]))
    plan = make_plan(
        y,
        X=X,
        horizons=horizons,
        test_size=test_size,
        test_fraction=test_fraction,
        train_size=train_size,
        validation_size=validation_size,
        stride=stride,
        refit=False,
        quantiles=(),
        metrics=metrics,
        scaled=scaled,
        season=season,
        seeds=seeds,
        max_windows=max_windows,
        max_history=max_history,
        time_limit=None,
        freq=freq,
        progress=progress,
    )
    longest = plan.settings["horizons"][-1]
    columns = [text] if isinstance(text, str) else list(text or ())
    if text is None:
        wanted = VARIANTS if variants is None else variants
        made = make_variants(estimator, plan.holdout, longest, wanted, as_given=as_given)
    else:
        wanted = TEXT_VARIANTS if variants is None else variants
        made = make_text_variants(estimator, plan.holdout, longest, columns, wanted)
    report = run_methods(plan, made.methods | {name: plan.method(name) for name in baselines})
    judged: dict[str, Any] = {
        "metric": metric,
        "min_difference": min_difference,
        "confidence": confidence,
    }
    if text is None:
        return make_ablation_report(report, made, estimator, **judged)
    return make_text_report(report, made, estimator, columns, **judged)
