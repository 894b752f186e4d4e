"""Maintenance of a whole store: count, check, prune and copy its embeddings."""

import datetime
import json
from collections.abc import Collection
from functools import partial
from typing import Any

from tsllm.embeddings.database import (
    SPACES,
    Database,
    count_records,
    delete_records,
    is_sound,
    list_spaces,
    put_records,
    remove_entry,
    scan_records,
)


def describe_spaces(database: Database) -> list[dict[str, Any]]:
    """Describe each space, with the number of its ``vectors``."""
    return [
        {**facts, "vectors": count_records(database, name)}
        for name, facts in list_spaces(database)[0]
    ]


def count_damaged(database: Database) -> dict[str, int]:
    """Compare all records with their checksums; count ``vectors`` and ``damaged`` ones."""
    database.check_pages()
    counts = {"vectors": 0, "damaged": 0}
    spaces, damaged = list_spaces(database)
    for name, _ in spaces:
        for records in scan_records(database, name):
            counts["vectors"] += len(records)
            counts["damaged"] += sum(not is_sound(key, record) for key, record in records)
    for name in damaged:
        lost = _count_lost(database, name)
        counts = {what: count + lost for what, count in counts.items()}
    return counts


def remove_unwanted(
    database: Database, *, unused_days: float | None, digests: Collection[str] | None
) -> dict[str, int]:
    """Remove damaged records, spaces that are unused for days, and spaces of other digests.

    Returns the numbers of ``damaged``, ``unwanted`` and ``kept`` records.
    """
    database.check_pages()
    counts = {"damaged": 0, "unwanted": 0, "kept": 0}
    today = datetime.date.today()
    spaces, damaged = list_spaces(database)
    for name in damaged:
        counts["damaged"] += _count_lost(database, name)
        remove_entry(database, name)
    for name, facts in spaces:
        age = (today - datetime.date.fromisoformat(facts["used"])).days
        if (unused_days is not None and age >= unused_days) or (
            digests is not None and facts["digest"] not in digests
        ):
            counts["unwanted"] += count_records(database, name)
            remove_entry(database, name)
            continue
        for records in scan_records(database, name):
            bad = [key for key, record in records if not is_sound(key, record)]
            if bad:
                database.write(name, partial(delete_records, keys=bad))
            counts["damaged"] += len(bad)
        counts["kept"] += count_records(database, name)
    return counts


def copy_spaces(source: Database, target: Database, digests: Collection[str] | None) -> None:
    """Copy the sound records of the digests' spaces (None: all) to a store, whose records stay."""
    source.check_pages()
    for name, facts in list_spaces(source)[0]:
        if digests is not None and facts["digest"] not in digests:
            continue
        entry = (name.encode(), json.dumps(facts).encode())
        target.write(SPACES, partial(put_records, records=[entry]))
        # increasing keys appended to an empty space leave no gaps
        append = count_records(target, name) == 0
        for records in scan_records(source, name):
            sound = [item for item in records if is_sound(*item)]
            target.write(name, partial(put_records, records=sound, append=append))


def _count_lost(database: Database, name: str) -> int:
    """Count the records of a space whose entry is damaged; the entry itself counts as one."""
    return max(1, count_records(database, name))
