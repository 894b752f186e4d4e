"""The page that goes with a saved event forecaster: what it is, what it learnt, how well."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tsllm.events.base import EventForecaster
from tsllm.saving.cards import card_table, language_model_lines, shown


def event_model_card(estimator: EventForecaster, config: Mapping[str, Any]) -> str:
    """Write the card of an event forecaster.

    Parameters
    ----------
    estimator : EventForecaster
        Fitted.
    config : mapping
        What its config.json says.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        f"# {config['class']}",
        "",
        f"A forecaster of events, fitted with tsllm {config['versions']['tsllm']}. This directory "
        "holds what was learnt, and not the language model.",
        "",
        "```python",
        "import tsllm",
        "",
        'model = tsllm.load("this directory")',
        "model.predict()"
        if config["history"] is not None
        else "model.predict(events)  # the model was saved without its history",
        "```",
        *_learnt_from(estimator),
        *_settings(estimator),
        *_slices(estimator),
        *language_model_lines(estimator._load_backbone(), config),
        *card_table("Made with", config["versions"]),
    ]
    return "\n".join(lines) + "\n"


def _learnt_from(estimator: EventForecaster) -> list[str]:
    """Tell about the events: how many, of which types, how far apart."""
    clock, names = estimator.history_.clock, list(estimator.classes_)
    unit = f" {clock.unit}" if clock.is_stamps else ""
    types = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return [
        "",
        "## Learnt from",
        "",
        f"- {estimator.n_events_:,} events of {len(names)} types: {types}",
        f"- mean gap: {estimator.time_scale_:.6g}{unit}",
    ]


def _settings(estimator: EventForecaster) -> list[str]:
    """List the parameters that are not the defaults."""
    arguments = inspect.signature(type(estimator)).parameters
    changed = {
        name: shown(value)
        for name, value in estimator.get_params(deep=False).items()
        if name != "embedding_store" and shown(value) != shown(arguments[name].default)
    }
    return card_table("Settings other than the defaults", changed)


def _slices(estimator: EventForecaster) -> list[str]:
    """Give the losses of each slice, of a method that learns slices."""
    lines: list[str] = []
    for number, one in enumerate(getattr(estimator, "slices_", [])):
        held_out = one["validation_loss"]
        rows = {
            "events": f"{one['events']:,} in {one['sequences']:,} sequences",
            "from, to": f"{one['first']}, {one['last']}",
            "prompt slots": ", ".join(map(str, one["slots"])) or "none",
            "network trained": "yes" if one["network_trained"] else "no",
            "best epoch": f"{one['best_epoch']} of {one['epochs']}",
            "training loss": f"{one['train_loss']:.4f} nats an event, in scaled time",
            "validation loss": "none held out" if held_out is None else f"{held_out:.4f}",
            "seconds": round(one["seconds"], 1),
        }
        lines += card_table(f"Slice {number}", rows)
    return lines
