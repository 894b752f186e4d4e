"""The page that goes with a saved model: what it is, what it was trained on, how well that went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.forecasters.base import BaseLLMForecaster
from tsllm.forecasters.state import FittedState

# As their own pages say.
LICENCES = {
    DEFAULT_BACKBONE: "Apache-2.0",
    "openai-community/gpt2": "MIT",
    "gpt2": "MIT",
}


def model_card(estimator: BaseLLMForecaster, config: Mapping[str, Any]) -> str:
    """Write a model's card.

    Parameters
    ----------
    estimator : forecaster
        Fitted or pretrained.
    config : mapping
        What its config.json says.

    Returns
    -------
    str
        Markdown.
    """
    state: FittedState = getattr(estimator, "fitted_", None) or estimator.pretrained_
    lines = [
        f"# {config['class']}",
        "",
        f"A time-series forecaster, {estimator.state} with tsllm {config['versions']['tsllm']}. "
        "This directory holds what was trained, and not the language model.",
        "",
        "```python",
        "import tsllm",
        "",
        'forecaster = tsllm.load("this directory")',
        *_usage(estimator, config),
        "```",
        *_trained_on(state),
        *_settings(estimator),
        *_results(estimator, state),
        *language_model_lines(state.backbone, config),
        *card_table("Made with", config["versions"]),
    ]
    return "\n".join(lines) + "\n"


def _usage(estimator: BaseLLMForecaster, config: Mapping[str, Any]) -> list[str]:
    """Show what can be done with the loaded model."""
    if estimator.state == "pretrained":
        return ["forecaster.fit(y).predict(fh=[1, 2, 3])  # fit adopts the pretrained model"]
    if config["contexts"] is None:
        return ["forecaster.update(y)  # the model was saved without its last values"]
    covariates = estimator.fitted_.covariates
    if covariates is not None and covariates.columns.known:
        names = ", ".join(covariates.columns.known)
        return [f"forecaster.predict(fh=[1, 2, 3], X=X)  # X: {names}, of those steps"]
    return ["forecaster.predict(fh=[1, 2, 3])"]


def _trained_on(state: FittedState) -> list[str]:
    """Tell about the series of each training."""
    lines = ["", "## Trained on", ""]
    for span in state.trained_on:
        many = "1 series" if span["series"] == 1 else f"{span['series']} series"
        lines.append(
            f"- {many} with {span['steps']} steps in all, {span['first']} to {span['last']}"
        )
    lines += [
        f"- frequency: {state.shape.freq or 'steps without dates'}",
        f"- variables: {state.shape.n_variables}",
        f"- context: {state.shape.context_length} steps",
    ]
    return lines


def _settings(estimator: BaseLLMForecaster) -> list[str]:
    """List the parameters that are not the defaults."""
    defaults = type(estimator).get_param_defaults()
    changed = {
        name: shown(value)
        for name, value in estimator.get_params(deep=False).items()
        if name != "embedding_store" and shown(value) != shown(defaults.get(name))
    }
    return card_table("Settings other than the defaults", changed)


def _results(estimator: BaseLLMForecaster, state: FittedState) -> list[str]:
    """Give the losses of the best epoch and the ground that intervals stand on."""
    last = state.history[-1] if state.history else {}
    # Epochs count from 1 in every training: the last one's is meant.
    best = next((h for h in reversed(state.history) if h["epoch"] == state.best_epoch), last)
    held_out = best.get("validation_loss")
    calibration = state.calibration
    assert calibration is not None  # training ends with it
    windows = len(calibration.pooled.errors)
    return card_table(
        "Validation",
        {
            "loss": f"{estimator.loss}, on standardised values",
            "best epoch": f"{state.best_epoch} of {last.get('epoch', 0)}",
            "training loss": best.get("train_loss"),
            "validation loss": "none held out" if held_out is None else held_out,
            "seconds": round(state.seconds, 1),
            "intervals": f"calibrated for {calibration.horizon} steps on {windows} "
            + ("training windows, so likely too narrow" if calibration.in_sample else "windows")
            + (", and adaptive" if calibration.adaptive else ""),
        },
    )


def language_model_lines(backbone: Backbone | None, config: Mapping[str, Any]) -> list[str]:
    """Name the language model and its licence."""
    if backbone is None:
        return ["", "## Language model", "", "None."]
    spec = backbone.spec
    licence = "none, for its weights are random" if spec.startswith("random:") else None
    if backbone.trained_whole:
        licence = "that of the model whose word embeddings it holds"
    return card_table(
        "Language model",
        {
            "name": spec,
            "layers": config["backbone"]["layers"],
            "digest": config["backbone"]["digest"],
            "licence": licence or LICENCES.get(spec, "see the backbone's own page"),
        },
    )


def card_table(title: str, rows: Mapping[str, Any]) -> list[str]:
    """Write a section with a table of names and values."""
    if not rows:
        return ["", f"## {title}", "", "None."]
    lines = ["", f"## {title}", "", "| | |", "|---|---|"]
    for name, value in rows.items():
        escaped = str(value).replace("|", "\\|")
        lines.append(f"| {name} | {escaped} |")
    return lines


def shown(value: object) -> str:
    """Write a parameter short enough for a table."""
    if hasattr(value, "shape"):
        return f"an array of shape {value.shape}"
    return repr(value)
