"""Export of a backbone to a directory that `load_backbone` reads."""

from pathlib import Path

from tsllm.backbone.handle import Backbone
from tsllm.backbone.loading import load_backbone
from tsllm.backbone.prepared import write_origin
from tsllm.errors import BackboneMismatchError, DataError


def export_backbone(backbone: Backbone, directory: Path) -> None:
    """Write a backbone's layers in use, its config and its tokenizer.

    Raises
    ------
    DataError
        It is a ``layer:...``, which is no model of its own.
    BackboneMismatchError
        The written model has another digest when it is read.
    """
    if backbone.trained_whole:
        raise DataError(
            f"the backbone {backbone.spec!r} cannot be bundled: its layer is saved with the model, "
            "and its word embeddings are another model's; save without include_backbone"
        )
    shared = backbone._shared
    if shared.quantisation is not None:
        raise DataError(
            f"the backbone {backbone.spec!r} cannot be bundled, because dtype="
            f"{shared.quantisation!r} rounds its weights on the GPU: save without "
            "include_backbone, and install the backbone where the model is loaded"
        )
    from tsllm.backbone.sources import quiet  # imports transformers

    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        shared.plain.save_pretrained(directory)
        backbone.tokenizer.save_pretrained(directory)
    if shared.origin is not None:
        write_origin(shared.origin, directory)
    written = load_backbone(str(directory), device="cpu")
    if written.digest != backbone.digest:
        raise BackboneMismatchError(
            f"the backbone {backbone.spec!r} cannot be bundled: transformers writes it as another "
            "model; save without include_backbone, and install the backbone where the model is "
            "loaded"
        )
