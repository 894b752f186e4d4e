"""The LMDB database of an embedding store: its spaces, records and transactions."""

import datetime
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tsllm.backbone import Backbone
from tsllm.embeddings.pages import PageError, check_pages
from tsllm.errors import DataError, EmbeddingStoreError

T = TypeVar("T")
KEY_BYTES = 32

#: Dtypes of vectors on disk; little-endian on every machine.
STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}

#: The named database that lists the spaces.
SPACES = "spaces"
DATA_FILE = "data.mdb"

#: Address space of the first map; it takes no space on disk before something is written.
FIRST_MAP = 64 * 2**20

#: Most named databases of an environment: one for each space, and the list of spaces.
MAX_SPACES = 1024
MAX_READERS = 1024
_CHECKSUM_BYTES = 8

#: Records read in one transaction, so that other transactions do not wait long.
AT_ONCE = 8192

# LMDB reports a page that was written half to a full disk as an input/output error.
_REASONS = {
    "the disk is full": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "the disk is full or failing": (errno.EIO,),
    "the folder cannot be written to": (errno.EACCES, errno.EPERM, errno.EROFS),
}
_lock = threading.Lock()
_open: "dict[Path, Database]" = {}


@dataclass(frozen=True)
class Space:
    """Everything that determines an embedding, except the text."""

    #: Canonical JSON. A key is the hash of the description and the text.
    description: bytes
    #: The name of the space's database.
    name: str
    #: Facts of the description, and the name with which the backbone was loaded.
    hidden_size: int
    stored_dtype: str
    pooling: str
    spec: str

    @classmethod
    def of(cls, backbone: Backbone, *, stored_dtype: str, pooling: str = "last_token") -> "Space":
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
        name = _name_of(description)
        return cls(description, name, backbone.hidden_size, stored_dtype, pooling, backbone.spec)


class Database:
    """An LMDB environment for all threads of this process.

    Transactions of one process run one after the other. They are short, and the map can grow
    between them.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.file = folder / DATA_FILE
        self.lock = threading.RLock()
        #: Texts that this process read without computing them, and texts that it computed.
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
        self._seen = self.file.stat()

    def check_pages(self, *, whole: bool = True) -> None:
        """Raise an error if the file is so damaged that reading it could end the process.

        ``whole`` is as for `tsllm.embeddings.pages.check_pages`.
        """
        try:
            if self.file.exists():
                check_pages(self.file, whole=whole)
        except PageError as damage:
            raise EmbeddingStoreError(
                f"the embedding store {self.folder} is damaged ({damage}): delete or move away "
                "this folder, and what it held is computed again when it is needed; or give "
                "another folder as embedding_store (or TSLLM_STORE)"
            ) from damage
        except OSError as error:
            raise EmbeddingStoreError(
                f"the embedding store {self.folder} cannot be read ({error.strerror}): make its "
                "files readable, or give another folder as embedding_store (or TSLLM_STORE)"
            ) from error

    def is_current(self) -> bool:
        """Check whether the file is still the one that was opened, and not shorter."""
        try:
            now = self.file.stat()
        except OSError:
            return False
        if now.st_ino != self._seen.st_ino or now.st_size < self._seen.st_size:
            return False
        self._seen = now
        return True

    def _open_environment(self) -> Any:
        lmdb = import_lmdb()
        self.check_pages(whole=False)
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
                # a read-only folder needs no lock, and cannot hold one
                lock=self.writable,
                readahead=False,
            )
            if self.writable:
                environment.reader_check()  # frees the slots of readers that were killed
            foreign = _is_foreign(environment)
        except (lmdb.Error, OSError) as error:
            raise _explained(error, self.folder) from error
        if foreign:
            environment.close()
            raise EmbeddingStoreError(
                f"{self.folder} is no embedding store, but holds an LMDB database of another "
                "program: give another folder as embedding_store (or TSLLM_STORE)"
            )
        return environment

    def read(self, space: str, work: Callable[[Any], T], missing: T) -> T:
        """Run ``work(transaction)`` on a space's database; return ``missing`` if there is none."""

        def attempt() -> T:
            database = self._named(space)
            if database is None:
                return missing
            with self._environment.begin(db=database) as transaction:
                return work(transaction)

        return self._tried(attempt)

    def write(self, space: str, work: Callable[[Any], T]) -> T:
        """Run ``work(transaction)`` on a space's database, and commit. Create it if it is missing.

        ``work`` runs again on a larger map if the map was full.

        Raises
        ------
        EmbeddingStoreError
            If the folder is not writable, or the disk is full. Nothing of ``work`` is stored then;
            earlier commits are kept.
        """
        self.check_writable()

        def attempt() -> T:
            database = self._environment.open_db(_name_bytes(space))
            with self._environment.begin(write=True, db=database) as transaction:
                return work(transaction)

        return self._tried(attempt)

    def drop(self, space: str) -> None:
        """Delete all records of a space; later records use their pages again."""
        self.check_writable()

        def attempt() -> None:
            database = self._named(space)
            if database is not None:
                with self._environment.begin(write=True) as transaction:
                    transaction.drop(database, delete=False)

        self._tried(attempt)

    def bytes_on_disk(self) -> int:
        """Return the size of the store's file in bytes."""
        return self.file.stat().st_blocks * 512 if os.name == "posix" else self.file.stat().st_size

    def check_writable(self) -> None:
        """Raise an error if the folder is not writable."""
        if not self.writable:
            raise _refused(self.folder, "the folder cannot be written to")

    def _named(self, space: str) -> Any:
        """Open a space's database; return None if it does not exist."""
        lmdb = import_lmdb()
        try:
            return self._environment.open_db(_name_bytes(space), create=False)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            return None

    def _tried(self, attempt: Callable[[], T]) -> T:
        """Run a transaction; make the map larger where it is too small."""
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
    """Return this process's environment of a folder, opened on the first call.

    Raises
    ------
    EmbeddingStoreError
        If it cannot be opened, or is missing and must not be created.
    """
    folder = folder.expanduser().resolve()
    with _lock:
        known = _open.get(folder)
        if known is not None and known.is_current():
            return known
        # a folder that was removed, and perhaps created again, is another store
        if known is not None:
            del _open[folder]
            known._environment.close()
        _open[folder] = Database(folder, create=create)
        return _open[folder]


def is_store(folder: Path) -> bool:
    """Check whether a folder holds a store."""
    return (folder / DATA_FILE).exists()


def import_lmdb() -> Any:
    """Import lmdb; the error explains how to install it."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("the embedding store needs lmdb: pip install 'lmdb>=3.0'") from error
    return lmdb


def list_spaces(database: Database) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """List the spaces with their descriptions, and the names of those whose entry is damaged."""
    nothing: list[tuple[bytes, bytes]] = []
    entries = database.read(SPACES, lambda transaction: [*transaction.cursor()], nothing)
    sound, damaged = [], []
    for name, entry in entries:
        text = name.decode(errors="surrogateescape")
        facts = _read_entry(name, entry)
        if facts is None:
            damaged.append(text)
        else:
            sound.append((text, facts))
    return sound, damaged


def touch_space(database: Database, space: Space) -> None:
    """Record that a space is used today, with at most one write each day."""
    today = datetime.date.today().isoformat()
    name = space.name.encode()
    entry: bytes | None = database.read(SPACES, lambda transaction: transaction.get(name), None)
    known = (_read_entry(name, entry) if entry else None) or {"created": today, "used": None}
    if known["used"] == today:
        return
    facts = {"backbone": space.spec, **json.loads(space.description)}
    facts |= {"created": known["created"], "used": today}
    database.write(SPACES, lambda transaction: transaction.put(name, json.dumps(facts).encode()))


def _read_entry(name: bytes, entry: bytes) -> dict[str, Any] | None:
    """Read the entry of a space; return None if it is damaged.

    The name is the hash of all facts except ``backbone``, ``created`` and ``used``.
    """
    try:
        facts: dict[str, Any] = json.loads(entry)
        rest = dict(facts)
        backbone, _, used = (rest.pop(key) for key in ("backbone", "created", "used"))
        datetime.date.fromisoformat(used)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    same = _name_of(json.dumps(rest, sort_keys=True).encode()).encode() == name
    return facts if same and isinstance(backbone, str) else None


def text_keys(space: Space, texts: Sequence[str]) -> list[bytes]:
    """Compute the keys of texts in a space."""
    begun = hashlib.sha256(space.description)
    keys = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"texts must be a list of str, found {text!r} among them")
        try:
            written = text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the text {text[:60]!a} holds half a character (a surrogate), which no "
                "tokenizer reads: repair it where it is read"
            ) from None
        digest = begun.copy()
        digest.update(written)
        keys.append(digest.digest())
    return keys


def make_records(
    space: Space, keys: Sequence[bytes], vectors: np.ndarray, texts: Sequence[str]
) -> list[tuple[bytes, bytes]]:
    """Build the records of vectors (rows, hidden): the bytes of each vector and their checksum."""
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


def read_vectors(space: Space, records: Sequence[bytes]) -> np.ndarray:
    """Return the vectors of sound records, (records, hidden) float32."""
    dtype = STORED_DTYPES[space.stored_dtype]
    size = space.hidden_size * dtype.itemsize + _CHECKSUM_BYTES
    table = np.frombuffer(b"".join(records), dtype=np.uint8).reshape(len(records), size)
    vectors = table[:, :-_CHECKSUM_BYTES].copy().view(dtype)  # (records, hidden)
    return vectors.astype(np.float32, copy=False)


def is_sound(key: bytes, record: bytes) -> bool:
    """Check a record against its key and its checksum."""
    vector = record[:-_CHECKSUM_BYTES]
    return record[-_CHECKSUM_BYTES:] == _checksum(key, vector)


def find_damaged(space: Space, keys: Sequence[bytes], records: Sequence[bytes | None]) -> list[int]:
    """Return the positions of the records that are damaged; None stands for a missing one."""
    size = space.hidden_size * STORED_DTYPES[space.stored_dtype].itemsize + _CHECKSUM_BYTES
    return [
        i
        for i, (key, record) in enumerate(zip(keys, records, strict=True))
        if record is not None and not (len(record) == size and is_sound(key, record))
    ]


def put_records(
    transaction: Any, records: Sequence[tuple[bytes, bytes]], append: bool = False
) -> None:
    """Write records in the order of their keys; existing records stay."""
    transaction.cursor().putmulti(sorted(records), overwrite=False, append=append)


def replace_records(
    transaction: Any, records: Sequence[tuple[bytes, bytes]], damaged: Collection[bytes]
) -> None:
    """Write records as `put_records` does, also over those of damaged keys.

    A record that another process has repaired in the meantime stays.
    """
    for key in damaged:
        found = transaction.get(key)
        if found is not None and not is_sound(key, found):
            transaction.delete(key)
    put_records(transaction, records)


def remove_entry(database: Database, name: str) -> None:
    """Remove a space with its records from the list."""
    database.drop(name)
    database.write(SPACES, partial(delete_records, keys=[_name_bytes(name)]))


def delete_records(transaction: Any, keys: Sequence[bytes]) -> None:
    """Delete the records of keys, if they exist."""
    for key in keys:
        transaction.delete(key)


def scan_records(database: Database, name: str) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield all records of a database's table with their keys, some thousands at a time.

    No transaction is open between two yields.
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
    """Count the records of a database's table."""
    return database.read(name, lambda transaction: transaction.stat()["entries"], 0)


def _records_after(transaction: Any, after: bytes | None) -> list[tuple[bytes, bytes]]:
    """Read the next records after a key, or the first ones if None."""
    cursor = transaction.cursor()
    there = cursor.first() if after is None else cursor.set_range(after)
    if there and after is not None and cursor.key() == after:
        there = cursor.next()
    records: list[tuple[bytes, bytes]] = []
    while there and len(records) < AT_ONCE:
        records.append(cursor.item())
        there = cursor.next()
    return records


def _name_bytes(space: str) -> bytes:
    """Return a name as bytes, as LMDB has it; a damaged one may not be valid UTF-8."""
    return space.encode(errors="surrogateescape")


def _name_of(description: bytes) -> str:
    """Return the name of the space of a description."""
    return hashlib.sha256(description).hexdigest()[:32]


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(vector, digest_size=_CHECKSUM_BYTES, key=key).digest()


def _is_foreign(environment: Any) -> bool:
    """Check whether another program filled an environment: a store lists its spaces first."""
    if environment.stat()["entries"] == 0:
        return False
    try:
        environment.open_db(SPACES.encode(), create=False)
    except (import_lmdb().NotFoundError, import_lmdb().ReadonlyError):
        return True
    return False


def _is_writable(folder: Path) -> bool:
    """Check whether a folder, or its first existing parent, is writable."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    file = folder / DATA_FILE
    return os.access(there, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _next_power(size: int) -> int:
    """Round twice the size up to a power of two."""
    return 1 << (2 * size).bit_length()


def _refused(folder: Path, why: str) -> EmbeddingStoreError:
    return EmbeddingStoreError(
        f"the embedding store {folder} cannot store new embeddings, because {why}: give another "
        "folder as embedding_store (or TSLLM_STORE), or make it writable with free space; what it "
        "holds is safe"
    )


def _explained(error: Exception, folder: Path) -> EmbeddingStoreError:
    """Convert an error of LMDB to an error of one sentence."""
    text = str(error)
    for why, codes in _REASONS.items():
        if getattr(error, "errno", None) in codes or any(os.strerror(c) in text for c in codes):
            return _refused(folder, why)
    return EmbeddingStoreError(
        f"the embedding store {folder} cannot be used ({type(error).__name__}: {text}): move it "
        "away and embed anew, or give another folder as embedding_store"
    )


def _forget_after_fork() -> None:
    """Close the environments of the parent process in a forked child."""
    global _lock, _open
    inherited = _open
    _open, _lock = {}, threading.Lock()  # the old lock may stay locked in the child
    # now: later it would release locks of the child's own environments
    for database in inherited.values():
        database._environment.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
