"""What a store keeps of a text: a key, and a record of its vector and a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from tsllm.embeddings.database import Database
from tsllm.embeddings.spaces import Space
from tsllm.errors import DataError

KEY_BYTES = 32
CHECKSUM_BYTES = 8


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


def with_checksum(key: bytes, vector: bytes) -> bytes:
    """Make the record of a vector: its bytes, then their checksum."""
    return vector + _checksum(key, vector)


def is_sound(key: bytes, record: bytes) -> bool:
    """Tell whether a record is what was written under its key."""
    vector = record[:-CHECKSUM_BYTES]
    return record[-CHECKSUM_BYTES:] == _checksum(key, vector)


def put_records(
    transaction: Any, records: Sequence[tuple[bytes, bytes]], append: bool = False
) -> None:
    """Write records in the order of their keys; one that is there already stays."""
    transaction.cursor().putmulti(sorted(records), overwrite=False, append=append)


def delete_records(transaction: Any, keys: Sequence[bytes]) -> None:
    """Delete the records of keys, where they are there."""
    for key in keys:
        transaction.delete(key)


def count_records(database: Database, name: str) -> int:
    """Count the records of one of a database's tables."""
    return database.read(name, lambda transaction: transaction.stat()["entries"], 0)


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(vector, digest_size=CHECKSUM_BYTES, key=key).digest()
