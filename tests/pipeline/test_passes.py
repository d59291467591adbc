"""A pass feeds every clip that waits once, with the facts that its stages read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from toys import Double, Length

from pipeline import passes
from pipeline.clip import Measurement, clip_id
from pipeline.ledger import Ledger
from pipeline.manifest import read_manifest
from pipeline.passes import Curation, Pace, run_pass
from pipeline.progress import Progress
from pipeline.units import Finished, Lost
from pipeline.work import Result, Unit, Work


class InThisProcess:
    """A fleet of one worker that measures where it is asked."""

    def __init__(self, work: Work) -> None:
        self._work, self._units = work, list[Unit]()

    def free(self) -> list[str]:
        return [] if self._units else ["here"]

    idle = free

    def size(self) -> int:
        return 1

    def submit(self, worker: str, unit: Unit) -> None:
        self._units.append(unit)

    def wait(self, timeout_s: float) -> list[Finished | Lost]:
        done, self._units = self._units, []
        return [Finished("here", unit, self._measure(unit)) for unit in done]

    def retire(self, worker: str) -> None:
        raise AssertionError("it never crashes")

    def drain(self) -> None:
        return

    def _measure(self, unit: Unit) -> Result:
        result = Result()
        for stage in self._work.stages:
            clips = [task.clip for task in unit.tasks]
            outcomes = stage.measure(clips, [None] * len(clips), [t.facts for t in unit.tasks])
            for clip, outcome in zip(clips, outcomes, strict=True):
                result.add(clip.clip_id, stage.name, outcome)
                result.fates[clip.clip_id] = "kept"
        return result


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_facts_are_fed_in_portions_and_none_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(passes, "FACTS_AT_ONCE", at_once)
    names = [f"{'x' * number}.mp4" for number in range(1, 9)]
    (tmp_path / "clips.csv").write_text("video,caption\n" + "".join(f"{n},A.\n" for n in names))
    stages = (Length(), Double())
    ledger = Ledger(str(tmp_path / "facts"), stages)
    known = [(clip_id(name), Measurement({"letters": len(name)})) for name in names]
    ledger.append({"length": known[:5]})
    ledger.append({"length": known[5:]})
    manifest = read_manifest(str(tmp_path / "clips.csv"), zipped=False)
    curation = Curation(manifest, stages, {}, ledger)

    @contextmanager
    def fleet(work: Work) -> Iterator[InThisProcess]:
        yield InThisProcess(work)

    def unseen(name: str, total: int) -> Progress:
        return Progress(name, total, None, stream=io.StringIO())

    report = run_pass("double", ("double",), curation, fleet, lambda: False, Pace(2), unseen)
    assert report.done
    assert report.todo == len(names)
    found = ledger.facts("double")
    twice = dict(zip(found["clip_id"].to_pylist(), found["twice"].to_pylist(), strict=True))
    assert twice == {clip_id(name): 2 * len(name) for name in names}
