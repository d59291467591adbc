"""A host that dies, hangs or grows is replaced, and exactly the guilty clip has failed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from toys import Double, Length, tasks

from pipeline.clip import Failed, Measurement
from pipeline.host import Host, StageError
from pipeline.work import Limits, Result, Unit, Work

LIMITS = Limits(measure_s=1.5, memory_gib=0.5)


def run(names: list[str], stages: tuple = (Length(batch=2),), second_try: bool = False) -> Result:
    work = Work(stages, {stage.name: stage.filters for stage in stages}, limits=LIMITS)
    host = Host(work)
    try:
        return host.run(Unit(0, tuple(tasks(*names)), second_try), lambda: False)
    finally:
        host.close()


def codes(result: Result) -> dict[str, str]:
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*NAMES)}
    return {by_id[c]: o.code for c, _, o in result.outcomes if isinstance(o, Failed)}


NAMES = ["a", "b", "crash", "c", "hang", "d", "eat", "bad", "e", "f"]


def test_only_the_guilty_clips_of_a_batch_have_failed() -> None:
    result = run(NAMES)
    assert codes(result) == {"crash": "crash", "hang": "timeout", "eat": "memory", "bad": "bad"}
    measured = [clip for clip, _, outcome in result.outcomes if isinstance(outcome, Measurement)]
    assert len(measured) == len(set(measured)) == 6
    assert len(result.fates) == len(NAMES)


def test_a_rejected_clip_skips_the_later_stages() -> None:
    result = run(["short", "much too long a name"], (Length(), Double()))
    assert sorted(result.fates.values()) == ["kept", "rejected"]
    assert [stage for _, stage, _ in result.outcomes] == ["length", "double", "length"]


def test_a_stage_that_raises_stops_the_job_with_its_traceback() -> None:
    with pytest.raises(StageError, match="ZeroDivisionError: a bug at bug"):
        run(["a", "bug"])


def test_a_worker_on_which_everything_crashes_retires_itself() -> None:
    result = run([f"crash{i}" for i in range(6)], (Length(),))
    assert result.sick
    assert len(result.fates) == 3


def test_crashes_of_a_second_try_are_the_clips_own() -> None:
    result = run([f"crash{i}" for i in range(4)], (Length(),), second_try=True)
    assert not result.sick
    assert len(result.crashed()) == 4


def test_a_stopped_host_returns_what_it_has() -> None:
    host = Host(Work((Length(),), {}, limits=LIMITS))
    started = time.monotonic()
    result = host.run(
        Unit(0, tuple(tasks(*[f"slow{i}" for i in range(20)]))),
        lambda: time.monotonic() - started > 2,
    )
    host.close()
    assert 0 < len(result.fates) < 20
    assert len(result.outcomes) == len(result.fates)


def test_the_weights_are_loaded_once_for_many_units(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    host = Host(Work((Length(diary),), {}))
    for number in range(3):
        host.run(Unit(number, tuple(tasks(f"a{number}", f"b{number}"))), lambda: False)
    host.close()
    pids = {line.split()[1] for line in diary.read_text().splitlines()}
    assert len(pids) == 1
    assert not Path(f"/proc/{pids.pop()}").exists()
    assert os.getpid() not in pids
