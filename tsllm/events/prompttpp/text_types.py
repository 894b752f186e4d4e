"""Event types as texts, embedded once by a frozen language model."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from tsllm.adapters.events.encoders.llm import mean_token_embeddings
from tsllm.backbone import Backbone
from tsllm.embeddings import open_store
from tsllm.errors import DataError


def type_vectors(
    encoder: str,
    classes: Iterable[str],
    type_text: str | Mapping[str, str],
    backbone: Backbone,
    store: Any = None,
) -> Tensor:
    """Embed the texts of types as an encoder reads them: (types, width); see `embed_types`."""
    if encoder == "llm":
        return embed_types(classes, type_text, backbone, store)
    return mean_token_embeddings(backbone, type_texts(classes, type_text))


def type_texts(classes: Iterable[str], type_text: str | Mapping[str, str]) -> list[str]:
    """Write the text of each type, from a template with ``{name}`` or a mapping.

    Raises
    ------
    DataError
        A template without ``{name}`` or with other fields, a type that the mapping lacks or names
        twice, or an empty text.

    Examples
    --------
    >>> type_texts(["bark", "bite"], "a dog's {name}")
    ["a dog's bark", "a dog's bite"]
    """
    names = list(classes)
    if isinstance(type_text, str):
        if "{name}" not in type_text:
            raise DataError(
                f"type_text={type_text!r} reads alike for every type: write {{name}} where the "
                "type belongs, or pass a mapping from type to text"
            )
        try:
            return [type_text.format(name=name) for name in names]
        except (LookupError, ValueError) as error:
            raise DataError(
                f"type_text={type_text!r} is no template ({error}): {{name}} is its one field, and "
                "braces of the text are doubled"
            ) from None
    by_name = {str(name): text for name, text in type_text.items()}  # numbers name types too
    if len(by_name) < len(type_text):
        given = [str(name) for name in type_text]
        twice = next(name for name in given if given.count(name) > 1)
        raise DataError(f"type_text has two texts for the type {twice!r}: keep one of them")
    missing = [name for name in names if name not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"type_text has no text for the type{'s' * (len(missing) > 1)} "
            f"{', '.join(map(repr, missing[:3]))}{more}: add it, or pass a template such as "
            "'{name}'"
        )
    texts = [by_name[name] for name in names]
    for name, text in zip(names, texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"type_text has {text!r} for the type {name!r}: give it a text")
    return texts


def embed_types(
    classes: Iterable[str],
    type_text: str | Mapping[str, str],
    backbone: Backbone,
    store: Any = None,
) -> Tensor:
    """Embed the texts of types; each text is computed once and kept in the embedding store.

    Encoders, such as sentence models, average the states of a text's tokens; decoders use the state
    of the last token. Without a ``store`` texts are kept in the user's cache folder.

    Returns
    -------
    Tensor (types, width)
        float32 on the CPU.

    Examples
    --------
    >>> import tempfile
    >>> from tsllm.backbone import load_backbone
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     embed_types(["bark", "bite"], "a dog's {name}", backbone, folder).shape
    torch.Size([2, 64])
    """
    pooling = "last_token" if backbone.natively_causal else "mean"
    return open_store(store).encode(type_texts(classes, type_text), backbone, pooling=pooling)
