"""The card of a saved model: what it is, what it was trained on, and how well that went."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsllm.backbone import DEFAULT_BACKBONE, Backbone

if TYPE_CHECKING:
    from tsllm.events.base import EventForecaster
    from tsllm.forecasters.base import SeriesForecaster

# From the models' own pages.
#: Parameters that name places on one machine; a saved model does not have them.
MACHINE_PARAMETERS = ("embedding_store", "checkpoint_dir")
LICENCES = {
    DEFAULT_BACKBONE: "Apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "Apache-2.0",
    "openai-community/gpt2": "MIT",
    "gpt2": "MIT",
}
_TEMPLATE = Path(__file__).with_name("templates") / "card.md.jinja"


def model_card(
    estimator: SeriesForecaster | EventForecaster, versions: Mapping[str, str], context: bool
) -> str:
    """Write a model's card in the form of the Hugging Face hub.

    ``versions`` are those of the packages that it was made with; ``context``: the model was saved
    with its context.
    """
    # Imported here: a model that is only loaded needs no card.
    from huggingface_hub import ModelCard, ModelCardData

    facts = estimator._card_facts(context)
    backbone = facts.pop("backbone")
    results = facts.pop("results")
    tables = {
        "Settings other than the defaults": _settings(estimator),
        **results,
        "Language model": _language_model(backbone),
        "Made with": versions,
    }
    on_hub = (
        backbone is not None
        and not backbone.spec.startswith(("random:", "layer:"))
        and not Path(backbone.spec).is_absolute()
    )
    data = ModelCardData(
        library_name="tsllm",
        pipeline_tag="time-series-forecasting",
        base_model=backbone.spec if on_hub else None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=type(estimator).__name__,
        versions=versions,
        tables=tables,
        **facts,
    )
    return str(card)


def _settings(estimator: SeriesForecaster | EventForecaster) -> dict[str, str]:
    """List the parameters that are not the defaults."""
    arguments = inspect.signature(type(estimator)).parameters
    return {
        name: _shown(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in MACHINE_PARAMETERS and _shown(value) != _shown(arguments[name].default)
    }


def _language_model(backbone: Backbone | None) -> dict[str, Any]:
    """Name the language model and its licence."""
    if backbone is None:
        return {}
    licence = LICENCES.get(backbone.spec, "see the backbone's own page")
    if backbone.licence is not None:
        licence = f"{backbone.licence}, as its GGUF file says"
    if backbone.spec.startswith("random:"):
        licence = "none, for its weights are random"
    if backbone.trained_whole:
        licence = "that of the model whose word embeddings it holds"
    state = backbone.to_state()
    return {"name": state.pop("spec"), **state, "licence": licence}


def _shown(value: object) -> str:
    """Write a parameter short enough for a table."""
    if hasattr(value, "shape"):
        return f"an array of shape {value.shape}"
    return repr(value)
