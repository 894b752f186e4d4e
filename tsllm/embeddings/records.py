"""What a store keeps of a text: a key, and a record of its vector and a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tsllm.embeddings.database import Database
from tsllm.embeddings.spaces import Space
from tsllm.errors import DataError

KEY_BYTES = 32
#: What vectors can be kept in; little-endian on every machine.
STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}
_CHECKSUM_BYTES = 8
# Records read in one transaction, so that nobody waits long for the next.
_AT_ONCE = 8192


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
