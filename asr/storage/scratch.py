"""Which keys stand in which splits, in a temporary file: memory does not grow with the corpus. 3 to
8 us a key.

SQLite keeps the file, in its own folder for such, and removes it when the tally is closed or its
process dies.
"""

from __future__ import annotations

import sqlite3


class DiskSet:
    """A set of (kind, key, split), larger than memory."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(
            "", isolation_level=None
        )  # no name: a file of its own that nobody else sees
        self.db.execute("PRAGMA journal_mode = OFF")
        self.db.execute(
            "CREATE TABLE seen (kind TEXT, key BLOB, split TEXT, PRIMARY KEY (kind, key, split)) WITHOUT ROWID"
        )
        self.db.execute("BEGIN")

    def add(self, kind: str, key: bytes, split: str = "") -> bool:
        """Note a key; tells whether it is new."""
        return (
            self.db.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (kind, key, split)
            ).rowcount
            == 1
        )

    def shared(self, kind: str) -> list[bytes]:
        """Keys of a kind that stand in two splits or more, in order."""
        found = self.db.execute(
            "SELECT key FROM seen WHERE kind = ? GROUP BY key HAVING count(*) > 1 ORDER BY key",
            (kind,),
        )
        return [key for (key,) in found]

    def close(self) -> None:
        self.db.close()
