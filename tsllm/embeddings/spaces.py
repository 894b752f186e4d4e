"""Spaces: the embeddings of one backbone, run in one way, that are comparable with each other."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tsllm.backbone import Backbone
from tsllm.embeddings.database import Database

#: The named database that lists the spaces.
SPACES = "spaces"


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
