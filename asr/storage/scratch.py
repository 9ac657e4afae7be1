"""A set larger than memory, in a temporary file: which keys stand in which splits.

Memory does not grow with the corpus; a key costs 3 to 8 us. SQLite keeps the file in its own folder
for temporary files, and removes it when the set is closed or its process dies.
"""

from __future__ import annotations

import sqlite3

SCHEMA = """
CREATE TABLE seen (kind TEXT, key BLOB, split TEXT, PRIMARY KEY (kind, key, split)) WITHOUT ROWID
"""


class DiskSet:
    """A set of (kind, key, split) on disk."""

    def __init__(self) -> None:
        # Without a name SQLite opens a temporary file that no other process sees.
        self.database = sqlite3.connect("", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute(SCHEMA)
        self.database.execute("BEGIN")

    def add(self, kind: str, key: bytes, split: str = "") -> bool:
        """Add a key; tells whether it is new."""
        cursor = self.database.execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (kind, key, split)
        )
        return cursor.rowcount == 1

    def shared(self, kind: str) -> list[bytes]:
        """Keys of a kind that stand in two splits or more, in order."""
        rows = self.database.execute(
            "SELECT key FROM seen WHERE kind = ? GROUP BY key HAVING count(*) > 1 ORDER BY key",
            (kind,),
        )
        return [key for (key,) in rows]

    def close(self) -> None:
        self.database.close()
