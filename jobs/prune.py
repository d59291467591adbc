"""Deletes the tars of a run that its index does not name. No reader may hold an older index.

In an object store also the parts of uploads that were never finished, once they are a day old.
"""

from __future__ import annotations

from jobs.command import finish, parser, read_run
from pipeline import storage
from pipeline.errors import InputError
from pipeline.verify import prune

_DAY_S = 86_400.0


def main() -> int:
    """Says what is gone; `--dry-run` only says what would go."""
    arguments = parser(__doc__)
    arguments.add_argument("--dry-run", action="store_true", help="delete nothing")
    given = arguments.parse_args()
    run = read_run(given)
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER")
    pruned = prune(storage.join(run.out, "shards"), given.dry_run)
    word = "would be deleted" if given.dry_run else "deleted"
    for shard in pruned.shards:
        print(f"{shard}: {word}")
    if not given.dry_run and (left := storage.clear_uploads(run.out, _DAY_S)):
        print(f"{left} unfinished uploads deleted")
    print(f"{len(pruned.shards)} shards, {pruned.size / 1e6:.1f} MB {word}")
    return 0


if __name__ == "__main__":
    finish(main)
