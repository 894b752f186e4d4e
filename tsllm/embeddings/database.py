"""The LMDB database under an embedding store: its spaces, its records, its transactions."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tsllm.backbone import Backbone
from tsllm.errors import DataError, EmbeddingStoreError

T = TypeVar("T")
KEY_BYTES = 32

#: What vectors can be kept in; little-endian on every machine.
STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}

#: The named database that lists the spaces.
SPACES = "spaces"
DATA_FILE = "data.mdb"

#: Address space for the first map; no room on disk is taken before something is written.
FIRST_MAP = 64 * 2**20

#: Named databases that an environment can hold: one a space, and the list of spaces.
MAX_SPACES = 1024
MAX_READERS = 1024
_CHECKSUM_BYTES = 8

# Records read in one transaction, so that nobody waits long for the next.
_AT_ONCE = 8192

# LMDB reports a page that a full disk took only half as an input/output error.
_REASONS = {
    "the disk is full": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "the disk is full or failing": (errno.EIO,),
    "the folder cannot be written to": (errno.EACCES, errno.EPERM, errno.EROFS),
}
_lock = threading.Lock()
_open: dict[Path, Database] = {}


@dataclass(frozen=True)
class Space:
    """Everything but the text that decides an embedding.

    Attributes
    ----------
    description : bytes
        Canonical JSON; what a key is the hash of, before the text.
    name : str
        Of the database that holds the space.
    hidden_size : int
        Width of its embeddings.
    stored_dtype : str
        "float32" or "float16": what its embeddings are kept in.
    pooling : str
        "last_token" or "mean": which state of a text is its embedding.
    spec : str
        The backbone as it was asked for, for people to read.
    """

    description: bytes
    name: str
    hidden_size: int
    stored_dtype: str
    pooling: str
    spec: str

    @classmethod
    def of(cls, backbone: Backbone, *, stored_dtype: str, pooling: str = "last_token") -> Space:
        """Describe the space of a backbone's embeddings."""
        facts = {
            "digest": backbone.digest,
            "attention": "plain",
            "pooling": pooling,
            "special_tokens": True,
            "compute_dtype": str(backbone.dtype).removeprefix("torch."),
            "stored_dtype": stored_dtype,
            "hidden_size": backbone.hidden_size,
        }
        description = json.dumps(facts, sort_keys=True).encode()
        name = hashlib.sha256(description).hexdigest()[:32]
        return cls(description, name, backbone.hidden_size, stored_dtype, pooling, backbone.spec)


class Database:
    """One LMDB environment, for all threads of this process.

    Transactions of one process take turns: each is short, and the map can then grow between them.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.file = folder / DATA_FILE
        self.lock = threading.RLock()
        #: Texts that this process was served without computing, and those that it computed.
        self.hits = 0
        self.misses = 0
        self.writable = _is_writable(folder)
        if not self.file.exists():
            if not create:
                raise EmbeddingStoreError(
                    f"there is no embedding store in {folder}: fill one with tsllm embed or "
                    "EmbeddingStore.encode, or give the folder of one"
                )
            self.check_writable()
        self._environment = self._open_environment()
        self.inode = self.file.stat().st_ino

    def _open_environment(self) -> Any:
        lmdb = import_lmdb()
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            if self.writable:
                self.folder.mkdir(parents=True, exist_ok=True)
            environment = lmdb.open(
                str(self.folder),
                map_size=max(FIRST_MAP, _next_power(size)),
                max_dbs=MAX_SPACES,
                max_readers=MAX_READERS,
                readonly=not self.writable,
                # A folder that nobody can write to needs no lock, and has no room for one.
                lock=self.writable,
                readahead=False,
            )
            if self.writable:
                environment.reader_check()  # frees the slots of readers that were killed
        except (lmdb.Error, OSError) as error:
            raise _explained(error, self.folder) from error
        return environment

    def read(self, space: str, work: Callable[[Any], T], missing: T) -> T:
        """Run ``work(transaction)`` on a space's database; give ``missing`` where there is none."""

        def attempt() -> T:
            database = self._named(space)
            if database is None:
                return missing
            with self._environment.begin(db=database) as transaction:
                return work(transaction)

        return self._tried(attempt)

    def write(self, space: str, work: Callable[[Any], T]) -> T:
        """Run ``work(transaction)`` on a space's database, made where it is missing, and commit.

        ``work`` runs again, on a larger map, where the first one had no room.

        Raises
        ------
        EmbeddingStoreError
            The folder cannot be written to, or the disk is full. Nothing of ``work`` is kept then,
            and everything that was committed before.
        """
        self.check_writable()

        def attempt() -> T:
            database = self._environment.open_db(space.encode())
            with self._environment.begin(write=True, db=database) as transaction:
                return work(transaction)

        return self._tried(attempt)

    def drop(self, space: str) -> None:
        """Empty a space's database; its pages are written over by what comes next."""
        self.check_writable()

        def attempt() -> None:
            database = self._named(space)
            if database is not None:
                with self._environment.begin(write=True) as transaction:
                    transaction.drop(database, delete=False)

        self._tried(attempt)

    def bytes_on_disk(self) -> int:
        """Give the bytes that the store's file takes."""
        return self.file.stat().st_blocks * 512 if os.name == "posix" else self.file.stat().st_size

    def check_writable(self) -> None:
        """Refuse to go on where nothing could be kept."""
        if not self.writable:
            raise _refused(self.folder, "the folder cannot be written to")

    def _named(self, space: str) -> Any:
        """Open a space's database, or give None."""
        lmdb = import_lmdb()
        try:
            return self._environment.open_db(space.encode(), create=False)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            return None

    def _tried(self, attempt: Callable[[], T]) -> T:
        """Run a transaction; where the map is too small for it, adopt or make a larger one."""
        lmdb = import_lmdb()
        with self.lock:
            while True:
                try:
                    return attempt()
                except lmdb.MapResizedError:  # by another process
                    self._environment.set_mapsize(0)
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                except (lmdb.Error, OSError) as error:
                    raise _explained(error, self.folder) from error


def open_database(folder: Path, *, create: bool) -> Database:
    """Give this process's environment of a folder, opened at the first call.

    Raises
    ------
    EmbeddingStoreError
        It cannot be opened, or is missing and not to be created.
    """
    folder = folder.expanduser().resolve()
    with _lock:
        known = _open.get(folder)
        if known is not None and _is_same_file(known):
            return known
        # A folder that was removed, and perhaps made again, is another store.
        if known is not None:
            known._environment.close()
        _open[folder] = Database(folder, create=create)
        return _open[folder]


def is_store(folder: Path) -> bool:
    """Tell whether a folder holds a store."""
    return (folder / DATA_FILE).exists()


def import_lmdb() -> Any:
    """Import lmdb, or say how to install it: lean machines that embed nothing go without."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("the embedding store needs lmdb: pip install 'lmdb>=1.5'") from error
    return lmdb


def list_spaces(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """Read the list of spaces: names, and what is known of each."""
    return database.read(
        SPACES,
        lambda transaction: [
            (name.decode(), json.loads(entry)) for name, entry in transaction.cursor()
        ],
        [],
    )


def touch_space(database: Database, space: Space) -> None:
    """Note in the list that a space is used today; one writing a day."""
    today = datetime.date.today().isoformat()
    name = space.name.encode()
    entry: bytes | None = database.read(SPACES, lambda transaction: transaction.get(name), None)
    known = json.loads(entry) if entry else {"created": today, "used": None}
    if known["used"] == today:
        return
    facts = {"backbone": space.spec, **json.loads(space.description)}
    facts |= {"created": known["created"], "used": today}
    database.write(SPACES, lambda transaction: transaction.put(name, json.dumps(facts).encode()))


def text_keys(space: Space, texts: Sequence[str]) -> list[bytes]:
    """Hash texts in a space."""
    begun = hashlib.sha256(space.description)
    keys = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"texts must be a list of str, found {text!r} among them")
        digest = begun.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        keys.append(digest.digest())
    return keys


def make_records(
    space: Space, keys: Sequence[bytes], vectors: np.ndarray, texts: Sequence[str]
) -> list[tuple[bytes, bytes]]:
    """Make the records of vectors (rows, hidden): each vector's bytes, then their checksum.

    Raises
    ------
    DataError
        The stored dtype cannot hold a vector; the message names its text.
    """
    with np.errstate(over="ignore"):
        kept = vectors.astype(STORED_DTYPES[space.stored_dtype])
    bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(bad):
        raise DataError(
            f"the embedding of the text that begins {texts[bad[0]][:60]!r} is not finite in "
            f"{space.stored_dtype}: use EmbeddingStore(dtype='float32'), and a backbone in float32"
        )
    packed = [vector.tobytes() for vector in kept]
    return [(key, vector + _checksum(key, vector)) for key, vector in zip(keys, packed)]


def read_vectors(space: Space, records: Sequence[bytes | None]) -> np.ndarray | None:
    """Give the vectors of records, (records, hidden) float32; None where one is missing or cut."""
    dtype = STORED_DTYPES[space.stored_dtype]
    size = space.hidden_size * dtype.itemsize + _CHECKSUM_BYTES
    whole = [record for record in records if record is not None and len(record) == size]
    if len(whole) < len(records):
        return None
    table = np.frombuffer(b"".join(whole), dtype=np.uint8).reshape(len(whole), size)
    vectors = table[:, :-_CHECKSUM_BYTES].copy().view(dtype)  # (records, hidden)
    return vectors.astype(np.float32, copy=False)


def is_sound(key: bytes, record: bytes) -> bool:
    """Tell whether a record is what was written under its key."""
    vector = record[:-_CHECKSUM_BYTES]
    return record[-_CHECKSUM_BYTES:] == _checksum(key, vector)


def put_records(
    transaction: Any, records: Sequence[tuple[bytes, bytes]], append: bool = False
) -> None:
    """Write records in the order of their keys; one that is there already stays."""
    transaction.cursor().putmulti(sorted(records), overwrite=False, append=append)


def delete_records(transaction: Any, keys: Sequence[bytes]) -> None:
    """Delete the records of keys, where they are there."""
    for key in keys:
        transaction.delete(key)


def scan_records(database: Database, name: str) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield all records of one of a database's tables, some thousands at a time, with their keys.

    No transaction is open while the caller works on what was yielded.
    """
    after: bytes | None = None
    while True:
        records: list[tuple[bytes, bytes]]
        records = database.read(name, partial(_records_after, after=after), [])
        if not records:
            return
        yield records
        after = records[-1][0]


def count_records(database: Database, name: str) -> int:
    """Count the records of one of a database's tables."""
    return database.read(name, lambda transaction: transaction.stat()["entries"], 0)


def _records_after(transaction: Any, after: bytes | None) -> list[tuple[bytes, bytes]]:
    """Read the next records behind a key; None: from the first."""
    cursor = transaction.cursor()
    there = cursor.first() if after is None else cursor.set_range(after)
    if there and after is not None and cursor.key() == after:
        there = cursor.next()
    records: list[tuple[bytes, bytes]] = []
    while there and len(records) < _AT_ONCE:
        records.append(cursor.item())
        there = cursor.next()
    return records


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(vector, digest_size=_CHECKSUM_BYTES, key=key).digest()


def _is_same_file(database: Database) -> bool:
    try:
        return database.file.stat().st_ino == database.inode
    except OSError:
        return False


def _is_writable(folder: Path) -> bool:
    """Tell whether a folder, or the first one above it that exists, can be written to."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    file = folder / DATA_FILE
    return os.access(there, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _next_power(size: int) -> int:
    """Round up to twice the size, as a power of two."""
    return 1 << (2 * size).bit_length()


def _refused(folder: Path, why: str) -> EmbeddingStoreError:
    return EmbeddingStoreError(
        f"the embedding store {folder} keeps no new embeddings, for {why}: give another folder as "
        "embedding_store (or TSLLM_STORE), or make room and rights there; what it holds is safe"
    )


def _explained(error: Exception, folder: Path) -> EmbeddingStoreError:
    """Say in one sentence what LMDB met."""
    text = str(error)
    for why, codes in _REASONS.items():
        if getattr(error, "errno", None) in codes or any(os.strerror(c) in text for c in codes):
            return _refused(folder, why)
    return EmbeddingStoreError(
        f"the embedding store {folder} cannot be used ({type(error).__name__}: {text}): move it "
        "away and embed anew, or give another folder as embedding_store"
    )


def _forget_after_fork() -> None:
    """Let a child open environments of its own: those that it inherited are its parent's."""
    global _lock, _open
    inherited = _open
    _open, _lock = {}, threading.Lock()  # the old lock may stay locked in the child
    # At once: later it would release locks that the child's own environments hold by then.
    for database in inherited.values():
        database._environment.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
