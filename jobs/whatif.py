"""Replays the filters of another run file over the facts of a run: who would flip, and why.

Nothing is measured or built. `--out` names the run, `--config` the run file to try; without it the
run's own file is replayed. A clip that an earlier stage kept from being measured comes out pending.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.command import finish, parser, read_run
from jobs.curation import look_at, recorded
from jobs.house import House
from pipeline import storage
from pipeline.errors import InputError
from pipeline.verdicts import Verdicts, flip_counts, flips, funnel, reason

_SHOWN = 40


def main() -> int:
    """Prints the new funnel, then what changes, by reason and by clip."""
    given = parser(__doc__).parse_args()
    if not given.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER of a run to replay")
    before = look_at(recorded(given.out))
    if given.config is None:
        given.config = storage.join(given.out, "config.toml")
    given.corpus = given.corpus or before.run.corpus.manifest
    given.videos = given.videos or before.run.corpus.videos or None
    after = look_at(read_run(given), beside=before)
    if after.curation.manifest.id != before.curation.manifest.id:
        raise InputError(f"{given.config} is about another manifest than {given.out}")
    old, new = _replay(before, after)
    print(f"with {Path(given.config).name}:")
    print(f"{funnel(new, after.measures)}\n\n{describe(old, new)}")
    return 0


def _replay(before: House, after: House) -> tuple[Verdicts, Verdicts]:
    """Both runs' verdicts; facts that they share are read and joined once."""
    if after.curation.ledger is not before.curation.ledger:
        return before.replay(), after.replay()
    replay = before.facts(after.curation.filters)
    return replay.judge(before.curation.filters), replay.judge(after.curation.filters)


def describe(before: Verdicts, after: Verdicts) -> str:
    """First how many go from which reason to which, then clips."""
    rows = flips(before, after)
    if len(rows) == 0:
        return "no verdict changes"
    lines = [f"{len(rows):,} verdicts change:"]
    for (old, new), count in flip_counts(before, after, rows).items():
        lines.append(f"{count:>11,}  {old} -> {new}")
    shown = rows[:_SHOWN]
    lines += ["", *_clips(before, after, shown)]
    if len(rows) > len(shown):
        lines.append(f"  and {len(rows) - len(shown):,} more")
    return "\n".join(lines)


def _clips(before: Verdicts, after: Verdicts, rows: np.ndarray) -> list[str]:
    old, new = before.table(rows).to_pylist(), after.table(rows).to_pylist()
    pairs = zip(old, new, strict=True)
    return [f"  {was['video']} | {reason(was)} -> {reason(now)}" for was, now in pairs]


if __name__ == "__main__":
    finish(main)
