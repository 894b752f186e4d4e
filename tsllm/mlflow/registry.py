"""The closed list of the kinds of models that are served."""

from tsllm.errors import DataError, ModelFormatError
from tsllm.mlflow.events import ServedEvents
from tsllm.mlflow.kinds import ServedKind
from tsllm.mlflow.series import ServedSeries

KINDS: dict[str, ServedKind] = {kind.name: kind for kind in (ServedSeries(), ServedEvents())}


def kind_of(model: object) -> ServedKind:
    """Find the kind of a model."""
    for kind in KINDS.values():
        if isinstance(model, kind.models):
            return kind
    raise DataError(
        f"a {type(model).__name__} is no model of tsllm: pass a fitted forecaster, not a pipeline "
        "around one"
    )


def kind_named(name: object) -> ServedKind:
    """Find a kind by the name in a saved model's files."""
    if not isinstance(name, str) or name not in KINDS:
        raise ModelFormatError(
            f"the model is of the kind {name!r} and this tsllm serves {', '.join(KINDS)}: load it "
            "with the version that saved it"
        )
    return KINDS[name]
