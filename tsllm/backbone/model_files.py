"""Checks of the files of a language model, so that a fault is one sentence when it is loaded.

Directories in the wild lack files, hold Git LFS pointers or web pages in their place, or mix the
files of two models. transformers reports some of these in many ways and loads others silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
TOKENIZER = "tokenizer.json"
# What some models have instead of tokenizer.json.
_OTHER_TOKENIZERS = ("tokenizer.model", "vocab.txt", "vocab.json", "merges.txt", "spiece.model")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FLOATS = ("F64", "F32", "F16", "BF16")
_WORD_EMBEDDINGS = re.compile(r"(wte|embed_tokens|embed_in|word_embeddings)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:h|layers?)\.(\d+)\.")
_LONGEST_HEADER = 100_000_000  # the limit of safetensors itself
# Two texts that every tokenizer of a language model tells apart.
_TEXTS = ("From 2019 to 2024 the value rose by 35.7", "The values were 0, 1, 4 and 86, then fell")


class UnusableModelError(ValueError):
    """Files of a model are missing, damaged or of another model; the message has the remedy."""


def check_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json, and check that it describes a model.

    Parameters
    ----------
    folder : Path
        The model's directory.

    Returns
    -------
    dict
        The entries, with a ``model_type``.

    Raises
    ------
    UnusableModelError
        The directory has no such file, or it describes no model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UnusableModelError(_without_config(folder))
    entries = _read_json(path)
    if not isinstance(entries, dict) or not isinstance(entries.get("model_type"), str):
        if isinstance(entries, dict) and str(entries.get("format", "")).startswith("tsllm"):
            raise UnusableModelError(
                "it holds a forecaster that tsllm.save wrote, and no language model: load it with "
                "tsllm.load, and give the directory of its language model here"
            )
        raise UnusableModelError(
            f"its {CONFIG} does not say which model it describes (model_type): copy the file from "
            "the model's page again"
        )
    return entries


def check_sizes(config: PretrainedConfig) -> None:
    """Check the sizes of a config, and drop a padding token that has no word embedding.

    Some checkpoints name such a token, torch refuses it, and tsllm never uses it.

    Raises
    ------
    UnusableModelError
        A size is below 1.
    """
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"):
        if (value := getattr(config, name)) < 1:
            raise UnusableModelError(
                f"its {CONFIG} says {name}={value}: copy the file from the model's page again"
            )
    token = getattr(config, "pad_token_id", None)
    if token is not None and not -config.vocab_size <= token < config.vocab_size:
        config.pad_token_id = None


def check_no_adapter(folder: Path) -> None:
    """Check that there is no PEFT adapter, which transformers would apply without a word.

    Raises
    ------
    UnusableModelError
        The directory has an adapter_config.json.
    """
    if (folder / ADAPTER).is_file():
        raise UnusableModelError(
            f"it holds a PEFT adapter ({ADAPTER}): {_merge(folder)}, or move {ADAPTER} away to use "
            "the model without it"
        )


def tokenizer_fault(folder: Path) -> str | None:
    """Return the fault of the tokenizer's files, after they could not be read.

    Parameters
    ----------
    folder : Path
        The model's directory.

    Returns
    -------
    str or None
        None where the files that are there look whole.
    """
    there = [name for name in (TOKENIZER, *_OTHER_TOKENIZERS) if (folder / name).is_file()]
    if not there:
        return (
            f"it has no tokenizer ({TOKENIZER}, or vocab.txt, vocab.json with merges.txt, "
            "tokenizer.model): copy the tokenizer files from the model's page into it"
        )
    for name in there:
        if fault := _foreign_content(folder / name):
            return fault
    if TOKENIZER in there:
        try:
            _read_json(folder / TOKENIZER)
        except UnusableModelError as error:
            return str(error)
    elif len(pair := {"vocab.json", "merges.txt"} & set(there)) == 1:
        (missing,) = {"vocab.json", "merges.txt"} - pair
        return f"its tokenizer lacks {missing}: copy it from the model's page into it"
    elif there == ["tokenizer.model"]:
        return (
            f"its tokenizer is a SentencePiece file (tokenizer.model) without a {TOKENIZER}: copy "
            f"the {TOKENIZER} of the model, or write it once with pip install sentencepiece and "
            "transformers' AutoTokenizer.from_pretrained(directory).save_pretrained(directory)"
        )
    return None


def check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer tells texts apart.

    transformers makes an empty tokenizer where the files are missing.

    Raises
    ------
    UnusableModelError
        Two different texts have the same tokens, or none.
    """
    if not tokenizer.is_fast:
        raise UnusableModelError(f"its tokenizer has no {TOKENIZER}: copy it from the model's page")
    one, other = (
        tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in _TEXTS
    )
    if not one or not other or set(one) == set(other):
        raise UnusableModelError(
            tokenizer_fault(folder)
            or "its tokenizer has no words and reads all texts alike: copy the tokenizer files "
            "from the model's page into it"
        )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check that each token of ordinary texts has a row in the word embeddings.

    Added special tokens, such as a padding token, may lie beyond the rows: few texts contain them,
    and `Backbone.tokens` refuses those.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer.
    rows : int
        The number of word embeddings.

    Raises
    ------
    UnusableModelError
        The tokenizer has more tokens than the weights.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    used = tokenizer.backend_tokenizer.encode(_TEXTS[0], add_special_tokens=True).ids
    ordinary = set(tokenizer.get_vocab().values()) - special
    largest = max(chain(ordinary, used), default=0)
    if largest >= rows:
        raise UnusableModelError(
            f"its tokenizer has tokens up to the number {largest:,} and its weights have word "
            f"embeddings for {rows:,}: the two are of different models, so copy both from one; "
            "after tokens were added, save the model with resize_token_embeddings"
        )


def check_weights(folder: Path) -> None:
    """Check the headers of a model's safetensors files, without reading a weight.

    Parameters
    ----------
    folder : Path
        The model's directory.

    Raises
    ------
    UnusableModelError
        There are none, one is missing, cut short or no safetensors file, or they are quantised.
    """
    for path in _weight_files(folder):
        if fault := _foreign_content(path):
            raise UnusableModelError(fault)
        for name, dtype in _stored_types(path).items():
            if name.endswith("weight") and dtype not in _FLOATS:
                raise UnusableModelError(
                    f"its weights are quantised ({path.name} holds {name!r} as {dtype}), which "
                    "tsllm does not run: use the unquantised model"
                )


def check_report(report: Mapping[str, Any], config: PretrainedConfig) -> None:
    """Check that the weights which transformers has read are those that config.json describes.

    Parameters
    ----------
    report : mapping
        The loading report of ``from_pretrained``.
    config : PretrainedConfig
        The config of the whole model, before layers are cut.

    Raises
    ------
    UnusableModelError
        Tensors are missing or have another shape, or there are more layers.
    """
    if missing := sorted(report["missing_keys"]):
        raise UnusableModelError(
            f"its weights lack {len(missing)} tensors, among them {missing[0]!r}, which its "
            f"{CONFIG} describes: copy both from one model"
        )
    if changed := sorted(report["mismatched_keys"]):
        name, stored, described = changed[0]
        entry = ""
        if _WORD_EMBEDDINGS.search(name) and stored[1:] == described[1:]:
            entry = f" (vocab_size={config.vocab_size})"
        raise UnusableModelError(
            f"its {CONFIG} and its weights are not of one model: the weights hold {name!r} as "
            f"{tuple(stored)}, and {CONFIG} describes {tuple(described)}{entry}; copy both from "
            "one model, or correct the entry"
        )
    numbers = map(_LAYER.search, report["unexpected_keys"])
    layers = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    if layers > config.num_hidden_layers:
        raise UnusableModelError(
            f"its {CONFIG} says num_hidden_layers={config.num_hidden_layers} and its weights have "
            f"{layers} layers: correct the entry; to use only the first layers, give layers "
            "(backbone_layers)"
        )


def check_finite(model: nn.Module) -> None:
    """Check that every weight is a finite number.

    Raises
    ------
    UnusableModelError
        A tensor holds NaN or infinity.
    """
    for name, weights in model.named_parameters():
        # A sum of finite numbers may overflow, so the second test decides. The first one is 20
        # times as fast, which saves most of a minute with 7 billion weights.
        if not torch.isfinite(weights.sum()) and not torch.isfinite(weights).all():
            raise UnusableModelError(
                f"its weights hold NaN or infinity in {name!r}: copy them from the model's page "
                "again"
            )


def _weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise UnusableModelError(_without_weights(folder))
    entries = _read_json(folder / INDEX)
    places = entries.get("weight_map") if isinstance(entries, dict) else None
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise UnusableModelError(
            f"its {INDEX} has no list of files (weight_map): copy the file from the model's page "
            "again"
        )
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UnusableModelError(
            f"its {INDEX} names {outside[0]!r}, which is no file of the directory: copy the model "
            "again from a source that you trust"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UnusableModelError(
            f"{len(missing)} of the {len(names)} files that its {INDEX} names are missing, among "
            f"them {missing[0]}: copy them from the model's page into it"
        )
    return [folder / name for name in names]


def _stored_types(path: Path) -> dict[str, str]:
    """Read the types of a safetensors file's tensors, and check its length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= min(size - 8, _LONGEST_HEADER) else b""
    try:
        entries: dict[str, Mapping[str, Any]] = json.loads(header)
        entries.pop("__metadata__", None)
        types = {name: str(entry["dtype"]) for name, entry in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UnusableModelError(
            f"its {path.name} is no safetensors file, or is cut short: copy it from the model's "
            "page again"
        ) from error
    whole = 8 + length + end
    if size < whole:
        raise UnusableModelError(
            f"its {path.name} is cut short, at {size:,} of {whole:,} bytes: copy it from the "
            "model's page again"
        )
    return types


def _foreign_content(path: Path) -> str | None:
    """Say what a file holds in the place of its content."""
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if not start:
        return f"its {path.name} is empty: copy it from the model's page again"
    if start.startswith(b"version https://git-lfs"):
        return (
            f"its {path.name} is a Git LFS pointer and not the file itself: run 'git lfs pull' in "
            "the directory, or copy the file from the model's page"
        )
    if start[:9].lower() in (b"<!doctype", b"<html lan") or start[:6].lower() == b"<html>":
        return (
            f"its {path.name} is a web page and not the file itself: download the file, not the "
            "page that shows it"
        )
    if path.suffix == ".safetensors" and start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return (
            f"its {path.name} is a pickle and no safetensors file: save the model as safetensors "
            "with transformers' save_pretrained"
        )
    return None


def _read_json(path: Path) -> Any:
    """Read a JSON file of a model."""
    if fault := _foreign_content(path):
        raise UnusableModelError(fault)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableModelError(
            f"its {path.name} is damaged, or cut short: copy it from the model's page again"
        ) from error


def _without_config(folder: Path) -> str:
    """Say what a directory without a config.json is, and which one to give instead."""
    if (folder / ADAPTER).is_file():
        return f"it holds a PEFT adapter ({ADAPTER}) and no {CONFIG}: {_merge(folder)}"
    if (folder / "MLmodel").is_file():
        return "it is a model of MLflow, and no language model: load it with tsllm.mlflow"
    if (folder / "modules.json").is_file():
        modules = _read_json(folder / "modules.json")
        for module in modules if isinstance(modules, list) else []:
            inner = folder / str(module.get("path", "")) if isinstance(module, dict) else folder
            if (inner / CONFIG).is_file():
                return (
                    "it is a model of sentence-transformers, whose language model lies in "
                    f"{inner.name}: give {inner}"
                )
    snapshots = sorted(folder.glob("snapshots/*/" + CONFIG))
    if snapshots:
        return (
            "it is a folder of the Hugging Face cache, which holds the model under its commit: "
            f"give {snapshots[-1].parent}"
        )
    inner_models = sorted(folder.glob("*/" + CONFIG))
    if inner_models:
        names = ", ".join(str(path.parent) for path in inner_models[:3])
        return f"it has no {CONFIG}: give a directory inside it that has one ({names})"
    files = sorted(folder.glob("*.gguf"))
    if files:
        return f"it has no {CONFIG} and holds a GGUF file: give the path of the file, {files[0]}"
    if (folder / "params.json").is_file():
        return (
            f"it has no {CONFIG}: it holds a model in its maker's own form (params.json); convert "
            "it with transformers, or take the model in the form of transformers"
        )
    if not any(folder.iterdir()):
        return "it is empty: copy the model's files into it"
    return f"it has no {CONFIG}: copy the model's files from its page into it"


def _without_weights(folder: Path) -> str:
    """Say why a directory has no weights that can be read."""
    pickled = sorted(chain.from_iterable(folder.glob(pattern) for pattern in _PICKLED))
    if pickled:
        return (
            f"it has no {WEIGHTS}, and tsllm does not read the pickled {pickled[0].name}: save "
            "the model as safetensors with transformers' save_pretrained"
        )
    others = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    parts = [path for path in others if "-of-" in path.name]
    if parts:
        return (
            f"it has {len(parts)} parts of weights, such as {parts[0].name}, and no {INDEX}, "
            "which lists them: copy it from the model's page into it"
        )
    if others:
        return f"it has no {WEIGHTS}, but {others[0].name}: give the file the name {WEIGHTS}"
    if files := sorted(folder.glob("*.gguf")):
        return f"it has no {WEIGHTS} and holds a GGUF file: give the path of the file, {files[0]}"
    return f"it has no {WEIGHTS}: copy the weights from the model's page into it"


def _merge(folder: Path) -> str:
    """Say how to turn an adapter and its base model into a model."""
    base = "which it does not name"
    try:
        entries = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        base = str(entries["base_model_name_or_path"] or base)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the remedy is the same without the name of the base
    return (
        f"merge it into its base model, {base}, once with peft "
        "(PeftModel.from_pretrained(base, directory).merge_and_unload().save_pretrained(other))"
    )


def reason(error: BaseException) -> str:
    """Return the first line of an error, which names the problem."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # Where the first line only announces, the next one says what.
    words = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return words.rstrip(".")
