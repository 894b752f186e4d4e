"""`EmbeddingStore`: text embeddings on disk, each computed once."""

import os
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tsllm.arguments import shown
from tsllm.backbone import Backbone
from tsllm.embeddings.database import (
    AT_ONCE,
    KEY_BYTES,
    STORED_DTYPES,
    Database,
    Space,
    find_damaged,
    is_store,
    make_records,
    open_database,
    read_vectors,
    replace_records,
    text_keys,
    touch_space,
)
from tsllm.embeddings.encoding import check_batch_size, embed_texts
from tsllm.embeddings.maintenance import (
    copy_spaces,
    count_damaged,
    describe_spaces,
    remove_unwanted,
)
from tsllm.errors import DataError, DataTypeError, EmbeddingStoreError

#: Keys of texts in a store, (texts, 32) uint8.
Keys: TypeAlias = np.ndarray

_POOLINGS = ("last_token", "mean")


class EmbeddingStore:
    """Embeddings of texts in a folder, shared by all that read them.

    The key of a text is the sha256 of the backbone's digest, how it is run (attention, pooling,
    special tokens, compute dtype), the stored dtype and the text. Embeddings that would differ
    therefore have different keys. Several threads and processes may use a folder at once. A
    process that is killed loses the last few seconds of work. The folder must be on a local file
    system. Copying or pickling a store copies its path, not its embeddings.

    Parameters
    ----------
    path : path or None, default=None
        The folder, created on the first write. None uses ``TSLLM_STORE``, else
        ``tsllm/embeddings`` in the user's cache folder.
    dtype : {"float32", "float16"}, default="float32"
        Dtype of the embeddings on disk. float16 takes half the space and rounds to 3 digits.
        Embeddings of different dtypes are stored separately.

    See Also
    --------
    open_store : Open the store that an ``embedding_store`` argument names.

    Examples
    --------
    >>> import tempfile
    >>> from tsllm.backbone import load_backbone
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = EmbeddingStore(folder)
    ...     shape = store.encode(["up", "down", "up"], backbone).shape
    ...     stats = store.stats()
    >>> shape, stats["hits"], stats["misses"], stats["vectors"]
    (torch.Size([3, 64]), 1, 2, 2)
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, dtype: str = "float32"):
        if dtype not in STORED_DTYPES:
            raise DataError(f"dtype={dtype!r} is not known; use 'float32' or 'float16'")
        if not isinstance(path, str | os.PathLike | None):
            raise DataTypeError(f"path must be that of a folder or None, found {shown(path)}")
        self.path = (default_path() if path is None else Path(path)).expanduser().absolute()
        self.dtype = dtype

    def encode(
        self,
        texts: Sequence[str],
        backbone: Backbone,
        *,
        pooling: str = "last_token",
        batch_size: int | str = "auto",
        progress: bool = False,
    ) -> Tensor:
        """Embed texts; compute only those that are not in the store.

        Parameters
        ----------
        texts : sequence of str
            May repeat; each distinct text is computed once.
        backbone : Backbone
            Runs in its own dtype. Its digest and dtype are part of the keys.
        pooling : {"last_token", "mean"}, default="last_token"
            The state of a text that is its embedding: that of the last token, or the mean of all.
            They are stored separately.
        batch_size : int or "auto", default="auto"
            Texts in a batch. "auto" chooses it for the device and the length of the texts.
        progress : bool, default=False
            Whether to show a progress bar on stderr.

        Returns
        -------
        Tensor, (texts, hidden)
            float32 on the CPU, in the order of the texts; a copy. In float32 an embedding does
            not depend on the other texts, within 1e-5.

        Raises
        ------
        DataError
            If the backbone cannot embed a text; see `Backbone.last_token`.
        EmbeddingStoreError
            If the folder is not readable, or not writable and something is missing, or if the disk
            is full.
        """
        space = self._space(backbone, pooling)
        keys = text_keys(space, texts)
        records, damaged = self._look_up_sound(space, keys)
        missing = [i for i, record in enumerate(records) if record is None]
        self._compute(space, texts, keys, missing, damaged, backbone, batch_size, progress)
        computed, _ = self._look_up_sound(space, [keys[i] for i in missing])
        for number, record in zip(missing, computed):
            records[number] = record
        return self._vectors(space, records)

    def fill(
        self,
        texts: Sequence[str],
        backbone: Backbone,
        *,
        batch_size: int | str = "auto",
        progress: bool = False,
    ) -> Keys:
        """Compute the embeddings that are not in the store, and return the keys of all texts.

        Parameters
        ----------
        texts : sequence of str
        backbone : Backbone
        batch_size : int or "auto", default="auto"
        progress : bool, default=False
            As for `encode`, with the same errors.

        Returns
        -------
        array (texts, 32), uint8
            Keys for `read`, a hundred times smaller than the embeddings.
        """
        space = self._space(backbone)
        keys = text_keys(space, texts)
        missing: list[int] = []
        damaged: set[bytes] = set()
        for first in range(0, len(keys), AT_ONCE):  # all records may not fit into memory
            records, bad = self._look_up_sound(space, keys[first : first + AT_ONCE])
            missing += [first + i for i, record in enumerate(records) if record is None]
            damaged |= bad
        self._compute(space, texts, keys, missing, damaged, backbone, batch_size, progress)
        return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)

    def read(self, keys: Keys, backbone: Backbone) -> Tensor:
        """Read embeddings by the keys of `fill`.

        Parameters
        ----------
        keys : array (texts, 32), uint8
            The keys.
        backbone : Backbone
            The backbone that computed the embeddings.

        Returns
        -------
        Tensor, (texts, hidden)
            float32 on the CPU.

        Raises
        ------
        EmbeddingStoreError
            If embeddings are missing or damaged.
        """
        space = self._space(backbone)
        packed = np.ascontiguousarray(keys, dtype=np.uint8).tobytes()
        rows = [packed[i : i + KEY_BYTES] for i in range(0, len(packed), KEY_BYTES)]
        return self._vectors(space, self._look_up_sound(space, rows)[0])

    def check_exists(self) -> None:
        """Raise an error if the folder holds no store.

        Raises
        ------
        EmbeddingStoreError
            If there is none, or it is damaged.
        """
        open_database(self._folder(), create=False)

    def stats(self) -> dict[str, Any]:
        """Count the embeddings of the store, and those that this process read or computed.

        Returns
        -------
        dict
            ``path``; ``hits`` and ``misses``, the texts that this process read without computing
            them and those that it computed; the number of ``vectors``; ``bytes`` on disk; and
            ``spaces``, one dict with its ``vectors`` for each backbone and way of running it.
        """
        database = self._existing()
        if database is None:
            nothing = {"hits": 0, "misses": 0, "vectors": 0, "bytes": 0, "spaces": []}
            return {"path": str(self.path), **nothing}
        spaces = describe_spaces(database)
        return {
            "path": str(self.path),
            "hits": database.hits,
            "misses": database.misses,
            "vectors": sum(space["vectors"] for space in spaces),
            "bytes": database.bytes_on_disk(),
            "spaces": spaces,
        }

    def verify(self) -> dict[str, int]:
        """Compare every embedding with its checksum.

        Returns
        -------
        dict
            The number of ``vectors`` and of ``damaged`` ones, which `prune` removes.

        Raises
        ------
        EmbeddingStoreError
            If there is no store in the folder, or its file is damaged beyond single embeddings.
        """
        return count_damaged(open_database(self._folder(), create=False))

    def prune(
        self, *, unused_days: float | None = None, keep: Sequence[Backbone] | None = None
    ) -> dict[str, int]:
        """Remove damaged embeddings and, on request, unused ones.

        The file does not become smaller: later embeddings use the free space. `export` writes a
        store of minimal size.

        Parameters
        ----------
        unused_days : float or None, default=None
            Remove embeddings of backbones that were not used for this number of days.
        keep : sequence of Backbone or None, default=None
            Remove embeddings of all other backbones.

        Returns
        -------
        dict
            Numbers of embeddings: ``damaged`` and ``unwanted`` ones, and those that are ``kept``.

        Raises
        ------
        DataError
            If ``unused_days`` is negative or no number.
        EmbeddingStoreError
            As for `verify`, or if the folder is not writable.
        """
        if unused_days is not None and not (
            isinstance(unused_days, int | float) and unused_days >= 0
        ):
            raise DataError(f"unused_days must be a number of at least 0, found {unused_days!r}")
        database = open_database(self._folder(), create=False)
        return remove_unwanted(database, unused_days=unused_days, digests=_digests(keep))

    def export(
        self, path: str | os.PathLike[str], *, backbones: Sequence[Backbone] | None = None
    ) -> "EmbeddingStore":
        """Copy embeddings to another store, to share them or to free space.

        Parameters
        ----------
        path : path
            The folder of the other store. Its embeddings stay.
        backbones : sequence of Backbone or None, default=None
            The backbones whose embeddings are copied; None copies all.

        Returns
        -------
        EmbeddingStore
            The other store.
        """
        other = EmbeddingStore(path, dtype=self.dtype)
        if other.path.resolve() == self.path.resolve():
            raise DataError(f"path={str(path)!r} is the store itself: give another folder")
        source = open_database(self._folder(), create=False)
        copy_spaces(source, open_database(other._folder(), create=True), _digests(backbones))
        return other

    def _space(self, backbone: Backbone, pooling: str = "last_token") -> Space:
        if pooling not in _POOLINGS:
            raise DataError(f"pooling={pooling!r} is not known; use 'last_token' or 'mean'")
        if not isinstance(backbone, Backbone):
            raise DataTypeError(
                f"backbone must be a loaded Backbone, found {shown(backbone)}: pass the output of "
                "tsllm.load_backbone"
            )
        return Space.of(backbone, stored_dtype=self.dtype, pooling=pooling)

    def _folder(self) -> Path:
        """Return the folder; raise an error if it is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise EmbeddingStoreError(
                f"the embedding store {self.path} cannot be a file: give a folder"
            )
        return self.path

    def _existing(self) -> Database | None:
        """Open the folder's database, if there is one."""
        return open_database(self._folder(), create=False) if is_store(self.path) else None

    def _read(self, name: str, work: Callable[[Any], Any], missing: Any) -> Any:
        """Run a reading transaction; return ``missing`` if there is no store yet."""
        database = self._existing()
        return missing if database is None else database.read(name, work, missing)

    def _look_up(self, space: Space, keys: Sequence[bytes]) -> list[bytes | None]:
        """Find the records of keys; None for missing ones."""

        def work(transaction: Any) -> list[bytes | None]:
            get = transaction.get
            return [get(key) for key in keys]

        found: list[bytes | None] = self._read(space.name, work, [None] * len(keys))
        return found

    def _look_up_sound(
        self, space: Space, keys: Sequence[bytes]
    ) -> tuple[list[bytes | None], set[bytes]]:
        """Find the sound records of keys, None for others; and the keys of damaged records."""
        records = self._look_up(space, keys)
        damaged = find_damaged(space, keys, records)
        for i in damaged:
            records[i] = None
        return records, {keys[i] for i in damaged}

    def _compute(
        self,
        space: Space,
        texts: Sequence[str],
        keys: Sequence[bytes],
        missing: Sequence[int],
        damaged: Collection[bytes],
        backbone: Backbone,
        batch_size: int | str,
        progress: bool,
    ) -> None:
        """Embed the texts of the missing numbers, each distinct one once, and store them."""
        check_batch_size(batch_size)
        if damaged:
            warnings.warn(
                f"{len(damaged)} embeddings in the store {self.path} are damaged and are computed "
                "again: check the disk; tsllm store verify counts all of them",
                stacklevel=3,
            )
        distinct = list({keys[i]: i for i in reversed(missing)}.values())[::-1]
        if not texts:
            return
        database = open_database(self.path, create=True)
        database.hits += len(texts) - len(distinct)
        database.misses += len(distinct)
        if database.writable:
            touch_space(database, space)
        if not distinct:
            return
        database.check_writable()

        def deliver(rows: list[int], vectors: np.ndarray) -> None:  # (rows, hidden)
            numbers = [distinct[row] for row in rows]
            records = make_records(
                space, [keys[i] for i in numbers], vectors, [texts[i] for i in numbers]
            )
            bad = [key for key, _ in records if key in damaged]
            database.write(space.name, partial(replace_records, records=records, damaged=bad))

        def is_done(rows: list[int]) -> list[bool]:
            found, _ = self._look_up_sound(space, [keys[distinct[row]] for row in rows])
            return [record is not None for record in found]

        embed_texts(
            [texts[i] for i in distinct],
            backbone,
            deliver,
            batch_size=batch_size,
            pooling=space.pooling,
            is_done=is_done,
            progress=progress,
        )

    def _vectors(self, space: Space, records: Sequence[bytes | None]) -> Tensor:
        """Read records as one tensor, (records, hidden)."""
        sound = [record for record in records if record is not None]
        if len(sound) < len(records):
            raise EmbeddingStoreError(
                f"{len(records) - len(sound)} embeddings are missing or damaged in the store "
                f"{self.path}: run tsllm store prune, and embed again"
            )
        return torch.from_numpy(read_vectors(space, sound))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, EmbeddingStore)
            and (self.path, self.dtype) == (other.path, other.dtype)
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.path, self.dtype))

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.path)!r}, dtype={self.dtype!r})"


def default_path() -> Path:
    """Return the absolute path of the default store: TSLLM_STORE, or a folder in the user's cache.

    Examples
    --------
    >>> default_path().is_absolute()
    True
    """
    import platformdirs

    given = os.environ.get("TSLLM_STORE")
    if given:
        return Path(given).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("tsllm")) / "embeddings"


def open_store(store: EmbeddingStore | str | os.PathLike[str] | None) -> EmbeddingStore:
    """Open the store that an ``embedding_store`` argument names: a store, its folder, or None.

    Examples
    --------
    >>> open_store("embeddings").path.name, open_store(None).path == default_path()
    ('embeddings', True)
    """
    return store if isinstance(store, EmbeddingStore) else EmbeddingStore(store)


def check_store(store: object) -> None:
    """Check an ``embedding_store`` argument, without opening it."""
    named = isinstance(store, str) and store != ""
    if not (named or isinstance(store, EmbeddingStore | os.PathLike | None)):
        raise DataError(
            f"embedding_store must be an EmbeddingStore, a path or None, found {shown(store)}"
        )


def _digests(backbones: Sequence[Backbone] | None) -> set[str] | None:
    """Return the digests of backbones; None stands for all."""
    return None if backbones is None else {backbone.digest for backbone in backbones}
