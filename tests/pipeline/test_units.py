"""The loop issues again what was lost, doubts a first crash, and overtakes stragglers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from toys import tasks

from pipeline.clip import Failed, Measurement
from pipeline.units import Batch, Finished, Loop, Lost, SickClusterError, cut
from pipeline.work import Result, Unit

Behaviour = Callable[[str, Unit], Result | None]


def answer(unit: Unit, code: str | None = None, seconds: float = 1.0) -> Result:
    """Every clip of the unit measured, or failed with this code."""
    result = Result(seconds=seconds, node="n")
    for task in unit.tasks:
        outcome = Failed(code, "") if code else Measurement({"letters": 1})
        result.add(task.clip.clip_id, "length", outcome)
        result.fates[task.clip.clip_id] = "failed" if code else "kept"
    return result


class PaperFleet:
    """Workers on paper: `behave` says what comes of a unit; None loses the worker."""

    def __init__(self, names: list[str], behave: Behaviour) -> None:
        self.names, self.behave = names, behave
        self.flying: list[tuple[str, Unit]] = []
        self.calls: Counter[str] = Counter()
        self.retired: list[str] = []

    def free(self) -> list[str]:
        busy = {name for name, _ in self.flying}
        return [name for name in self.names if name not in busy]

    idle = free

    def size(self) -> int:
        return len(self.names)

    def submit(self, worker: str, unit: Unit) -> None:
        self.flying.append((worker, unit))
        self.calls.update(task.clip.video for task in unit.tasks)

    def wait(self, timeout_s: float) -> list[Finished | Lost]:
        for worker, unit in list(self.flying):
            result = self.behave(worker, unit)
            if result is None:
                self.retire(worker)
                return [Lost(worker)]
            if result.seconds < 0:
                continue  # it hangs on
            self.flying.remove((worker, unit))
            return [Finished(worker, unit, result)]
        return []

    def retire(self, worker: str) -> None:
        self.flying = [(name, unit) for name, unit in self.flying if name != worker]
        self.names = [f"{worker}+" if name == worker else name for name in self.names]
        self.retired.append(worker)

    def drain(self) -> None:
        self.names = []


def outcomes(fleet: PaperFleet, names: list[str], size: int = 2) -> Counter[str]:
    """Runs the loop; clip -> how often it was recorded, failures as `clip!code`."""
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*names)}
    seen: Counter[str] = Counter()

    def record(batch: Batch) -> None:
        for clip_id, _, outcome in batch.outcomes:
            code = f"!{outcome.code}" if isinstance(outcome, Failed) else ""
            seen[by_id[clip_id] + code] += 1

    assert Loop(fleet, record, lambda: False).run(cut(tasks(*names), size))
    return seen


NAMES = [f"c{i}" for i in range(9)]


def test_every_clip_is_recorded_once() -> None:
    assert outcomes(PaperFleet(["a", "b"], lambda w, u: answer(u)), NAMES) == Counter(NAMES)


def test_the_units_of_lost_workers_are_done_again() -> None:
    losses = iter([True, False, True, True])

    def behave(worker: str, unit: Unit) -> Result | None:
        return None if next(losses, False) else answer(unit)

    assert outcomes(PaperFleet(["a", "b"], behave), NAMES) == Counter(NAMES)


def test_a_sick_worker_marks_no_clip_and_is_retired() -> None:
    def behave(worker: str, unit: Unit) -> Result | None:
        result = answer(unit, "crash" if worker == "a" else None)
        result.sick = worker == "a"
        return result

    fleet = PaperFleet(["a", "b"], behave)
    assert outcomes(fleet, NAMES, 3) == Counter(NAMES)
    assert fleet.retired == ["a"]


def test_a_clip_that_crashes_two_workers_has_failed() -> None:
    def behave(worker: str, unit: Unit) -> Result | None:
        guilty = [t for t in unit.tasks if t.clip.video == "c4"]
        result = answer(Unit(0, tuple(t for t in unit.tasks if t not in guilty)))
        if guilty:
            crashed = answer(Unit(0, tuple(guilty)), "crash")
            result.outcomes += crashed.outcomes
            result.fates.update(crashed.fates)
        return result

    fleet = PaperFleet(["a", "b"], behave)
    assert outcomes(fleet, NAMES)["c4!crash"] == 1
    assert fleet.calls["c4"] == 2


def test_a_straggler_is_overtaken_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr("pipeline.units.time.monotonic", lambda: float(next(clock)))

    def behave(worker: str, unit: Unit) -> Result | None:
        hangs = worker == "a" and unit.tasks[0].clip.video == "c0"
        return answer(unit, seconds=-1.0 if hangs else 1.0)

    fleet = PaperFleet(["a", "b"], behave)
    assert outcomes(fleet, NAMES) == Counter(NAMES)
    assert fleet.calls["c0"] == 2


def test_a_corpus_on_which_everything_crashes_stops_the_job() -> None:
    def behave(worker: str, unit: Unit) -> Result | None:
        return answer(unit, "crash")

    with pytest.raises(SickClusterError, match="crashed, on n"):
        outcomes(PaperFleet(["a", "b"], behave), [f"c{i}" for i in range(40)])


def test_a_stopped_loop_keeps_what_comes_back_and_feeds_no_more() -> None:
    asked = iter([False, False, False] + [True] * 100)
    fleet = PaperFleet(["a", "b"], lambda w, u: answer(u))
    kept: list[str] = []
    loop = Loop(fleet, lambda batch: kept.extend(batch.fates), lambda: next(asked))
    assert not loop.run(cut(tasks(*[f"c{i}" for i in range(40)]), 2))
    assert 0 < len(kept) < 40
    assert len(kept) == sum(fleet.calls.values())
