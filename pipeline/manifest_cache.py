"""A corpus as read, kept beside the facts: a million rows of CSV take ten seconds, this a moment.

An Arrow file that is mapped into memory, so that a command holds only the columns that it looks at.
Whatever is wrong with it, the corpus itself is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline import storage

READER = 1
"""Raised when the same corpus is read as other rows: what was kept before is then read anew."""

LEAST_BYTES = 4 << 20
"""A smaller corpus is read in a fifth of a second; ours."""

_NOTE = b"corpus"


class Kept(NamedTuple):
    """rows: of the manifest; id: of the manifest."""

    rows: pa.Table
    id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One corpus's file. state: what it was made of; another one makes the file worthless."""

    path: Path
    state: str

    def load(self) -> Kept | None:
        """What was kept of the corpus as it is now; None if nothing was."""
        try:
            rows = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
            note = json.loads((rows.schema.metadata or {})[_NOTE])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None
        if note["state"] != self.state:
            return None
        return Kept(rows.replace_schema_metadata(None), note["id"])

    def save(self, rows: pa.Table, manifest_id: str) -> None:
        """Keeps it, if there is room: this only saves time, so nothing hangs on it."""
        note = json.dumps({"state": self.state, "id": manifest_id})
        schema = rows.schema.with_metadata({_NOTE: note.encode()})
        hidden = self.path.with_name(f".tmp-{secrets.token_hex(8)}")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with hidden.open("xb") as file:
                    with pa.ipc.new_file(file, schema) as writer:
                        writer.write_table(rows.replace_schema_metadata(schema.metadata))
                    file.flush()
                    os.fsync(file.fileno())
                hidden.replace(self.path)
            finally:
                hidden.unlink(missing_ok=True)


def entry(folder: str, corpus: str, videos: str) -> Entry | None:
    """Where this corpus is kept; None for a small one, one that is not there, or a remote folder.

    videos: the place of the clips, which the manifest's id depends on.
    """
    place = storage.local(folder)
    if place is None:
        return None
    try:
        if storage.size(corpus) < LEAST_BYTES:
            return None
        state = storage.state(corpus)
    except OSError:
        return None
    name = hashlib.sha256(f"{corpus}\0{videos}".encode()).hexdigest()[:16]
    return Entry(place / f"{name}.arrow", f"reader {READER}; {corpus}; {videos}; {state}")
