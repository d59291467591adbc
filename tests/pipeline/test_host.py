"""A host that dies, hangs or grows is replaced, and exactly the guilty clip has failed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from toys import Brightness, Darkness, Double, Heavy, Length, Weightless, clip, tasks

from pipeline.clip import Failed, Measurement
from pipeline.errors import InputError
from pipeline.filters import Filter
from pipeline.frames import Every, FrameRequest, Indices
from pipeline.host import Host, StageError
from pipeline.stage import Stage
from pipeline.work import WAITING, Limits, Result, Task, Unit, Work

LIMITS = Limits(measure_s=1.5, memory_gib=0.5)
SMALL = FrameRequest(Every())


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


def test_every_host_loads_the_weights_once(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    host = Host(Work((Length(diary),), {}, limits=LIMITS))
    for number, names in enumerate((["a", "b"], ["c", "crash", "d"], ["e"])):
        host.run(Unit(number, tuple(tasks(*names))), lambda: False)
    host.close()
    lines = [line.split() for line in diary.read_text().splitlines()]
    loads = [pid for what, pid in lines if what == "loads"]
    assert len(loads) == len(set(loads)) == 4  # the crash killed a seasoned one and two fresh ones
    assert set(loads) == {pid for what, pid in lines if what != "loads"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in loads)
    assert str(os.getpid()) not in loads


def test_weights_that_only_the_worker_lacks_are_the_users_to_mend() -> None:
    with pytest.raises(InputError, match=r"^length\.model: the weights are not on this machine$"):
        Host(Work((Weightless(),), {})).start()


def test_a_host_too_large_for_its_limit_says_which() -> None:
    wanted = r"5 times while it started: its memory passed 0\.2 GiB \(engine\.limits\.memory_gib\)"
    with pytest.raises(StageError, match=wanted):
        Host(Work((Heavy(),), {}, limits=Limits(memory_gib=0.2))).start()


def test_a_stage_gets_as_many_clips_at_once_as_it_asks_for(render, tmp_path: Path) -> None:
    result = watched(render, tmp_path, Brightness(SMALL, batch=4), Darkness(SMALL, batch=2))
    assert [v["together"] for v in values(result, "brightness")] == [4, 4, 4, 4, 1]
    assert [v["together"] for v in values(result, "darkness")] == [2, 2, 2, 2, 1]


def test_a_batch_holds_no_more_frames_than_memory_may(render, tmp_path: Path) -> None:
    two_clips = Limits(frames_gib=2 * 3 * 48 * 64 * 3 / 2**30)
    result = watched(render, tmp_path, Brightness(SMALL, batch=4), limits=two_clips)
    found = values(result, "brightness")
    assert [v["together"] for v in found] == [2, 2, 2, 2, 1]
    assert [round(v["level"], -1) for v in found] == [40, 80, 120, 160, 200]


def test_a_result_tells_what_the_time_went_into(render, tmp_path: Path) -> None:
    result = watched(render, tmp_path, Length(pause_s=0.1), Brightness(SMALL))
    assert set(result.spent) == {WAITING, "length", "brightness"}
    assert 0.5 <= result.spent["length"] <= sum(result.spent.values()) <= result.seconds


@pytest.mark.parametrize("measure_all", [False, True])
def test_what_the_first_picture_rejects_is_read_no_further(
    texture, tmp_path: Path, measure_all: bool
) -> None:
    torn = [tmp_path / "dark.mkv", tmp_path / "bright.mkv"]
    for path, light in zip(torn, (0, 128), strict=True):
        write_torn(path, texture(96, 128) // 2 + light)
    stages = (Brightness(FrameRequest(Indices((0,)))), Darkness(SMALL))
    work = Work(stages, {"brightness": {"level": Filter(max=100)}}, measure_all, LIMITS)
    result = run_clips(work, torn)
    ends = {(stage, o.code if isinstance(o, Failed) else "") for _, stage, o in result.outcomes}
    if measure_all:
        assert ends == {("brightness", "partial")}
    else:
        assert ends == {("brightness", ""), ("darkness", "partial")}
        assert sorted(result.fates.values()) == ["failed", "rejected"]


def write_torn(path: Path, image: np.ndarray) -> None:
    """Half of a clip whose first pictures are whole."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        for n in range(48):
            shown = np.roll(image, 3 * n, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def values(result: Result, stage: str) -> list[Mapping[str, Any]]:
    outcomes = [outcome for _, name, outcome in result.outcomes if name == stage]
    return [outcome.values for outcome in outcomes if isinstance(outcome, Measurement)]


def watched(render, folder: Path, *stages: Stage, limits: Limits = LIMITS) -> Result:
    """Five clips of three frames through these stages, with two decoders."""
    paths = [
        render(folder / f"{level}.mp4", [np.full((48, 64, 3), level, np.uint8)] * 3)
        for level in (40, 80, 120, 160, 200)
    ]
    return run_clips(Work(stages, {}, limits=limits), paths)


def run_clips(work: Work, paths: Sequence[Path]) -> Result:
    clips = [replace(clip(path.name), path=str(path)) for path in paths]
    host = Host(work, decoders=2)
    try:
        return host.run(Unit(0, tuple(map(Task, clips))), lambda: False)
    finally:
        host.close()
