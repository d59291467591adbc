"""Replays the filters of another run file over the facts of a run: who would flip, and why.

Nothing is measured or built. `--out` names the run, `--config` the run file to try; without it the
run's own file is replayed.
"""

from __future__ import annotations

from pathlib import Path

from jobs.command import finish, parser, read_run
from jobs.curation import House, look_at, recorded
from pipeline import storage
from pipeline.errors import InputError
from pipeline.verdicts import flips, funnel

_SHOWN = 40


def main() -> int:
    """Prints both funnels' difference."""
    given = parser(__doc__).parse_args()
    if not given.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER of a run to replay")
    before = look_at(recorded(given.out))
    if given.config is None:
        given.config = storage.join(given.out, "config.toml")
    given.corpus = given.corpus or before.run.corpus.manifest
    given.videos = given.videos or before.run.corpus.videos or None
    after = look_at(read_run(given))
    if after.curation.manifest.id != before.curation.manifest.id:
        raise InputError(f"{given.config} is about another manifest than {given.out}")
    print(_compare(before, after, Path(given.config).name))
    return 0


def _compare(before: House, after: House, name: str) -> str:
    replayed = after.replay()
    flipped = flips(before.replay(), replayed)
    lines = [f"with {name}:", funnel(replayed, after.measures), ""]
    if flipped.num_rows == 0:
        return "\n".join([*lines, "no verdict changes"])
    lines.append(f"{flipped.num_rows} verdicts change:")
    for row in flipped.slice(0, _SHOWN).to_pylist():
        lines.append("  " + " | ".join("-" if v is None else str(v) for v in row.values()))
    if flipped.num_rows > _SHOWN:
        lines.append(f"  and {flipped.num_rows - _SHOWN} more")
    return "\n".join(lines)


if __name__ == "__main__":
    finish(main)
