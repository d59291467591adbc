"""Both runners run the same loop: the same facts, whatever is killed meanwhile."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from toys import Counted, Length, tasks

from pipeline.clip import Failed
from pipeline.errors import InputError
from pipeline.host import StageError
from pipeline.local_runner import LocalFleet
from pipeline.progress import Progress
from pipeline.units import Batch, Loop, cut
from pipeline.work import Limits, Work, WorkerKind

NAMES = [f"clip{i}" for i in range(12)] + ["crash", "hang", "bad"]
WANTED = {name: None for name in NAMES} | {"crash": "crash", "hang": "timeout", "bad": "bad"}
LIMITS = Limits(measure_s=1.5)


def run_here(work: Work, names: list[str], batches: list[Batch]) -> None:
    fleet = LocalFleet(work, lambda: False)
    assert Loop(fleet, batches.append, lambda: False).run(cut(tasks(*names), 4))
    fleet.close()


def run_on_ray(work: Work, names: list[str], batches: list[Batch]) -> None:
    from pipeline.ray_runner import RayFleet

    fleet = RayFleet(work, [WorkerKind(cpus=1, count=2)])
    assert Loop(fleet, batches.append, lambda: False).run(cut(tasks(*names), 3))
    fleet.close()


def codes(batches: list[Batch]) -> dict[str, str | None]:
    """Clip -> code; every clip exactly once."""
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*NAMES)}
    seen: dict[str, str | None] = {}
    for batch in batches:
        for clip_id, _, outcome in batch.outcomes:
            assert by_id[clip_id] not in seen
            seen[by_id[clip_id]] = outcome.code if isinstance(outcome, Failed) else None
    return seen


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[None]:
    from pipeline.ray_runner import cluster

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_metrics_report_interval_ms", "500")
        stack.enter_context(cluster())
        yield


def test_exactly_the_guilty_clips_fail_here() -> None:
    batches: list[Batch] = []
    run_here(Work((Length(),), {}, limits=LIMITS), NAMES, batches)
    assert codes(batches) == WANTED


@pytest.mark.ray
@pytest.mark.usefixtures("own_cluster")
def test_exactly_the_guilty_clips_fail_on_ray() -> None:
    batches: list[Batch] = []
    run_on_ray(Work((Length(),), {}, limits=LIMITS), NAMES, batches)
    assert codes(batches) == WANTED


@pytest.mark.ray
@pytest.mark.usefixtures("own_cluster")
def test_prometheus_is_told_of_clips_outcomes_and_workers() -> None:
    import ray

    from pipeline.ray_metrics import PassMetrics
    from pipeline.ray_runner import RayFleet

    shown = Progress("score", 10, None, stream=io.StringIO(), watcher=PassMetrics().look)
    shown.update(4, kept=3, rejected=1)
    shown.update(1, failed=1)
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    fleet = RayFleet(Work((Counted(),), {}), [WorkerKind(count=1)])
    assert Loop(fleet, lambda batch: None, lambda: False).run(cut(tasks("a", "b", "bad"), 2))
    wanted = {
        ("customvideox_clips_total", 'fate="kept"', 'stage_pass="score"'): 3,
        ("customvideox_clips_total", 'fate="rejected"', 'stage_pass="score"'): 1,
        ("customvideox_clips_left", 'stage_pass="score"'): 5,
        ("customvideox_outcomes_total", 'code="measured"', 'stage="counted"'): 2,
        ("customvideox_outcomes_total", 'code="bad"', 'stage="counted"'): 1,
        ("customvideox_workers{", 'state="placed"'): 1,
        ("customvideox_units_in_flight{",): 0,
    }
    found: dict[tuple[str, ...], float] = {}
    until = time.monotonic() + 60
    while found != wanted and time.monotonic() < until:
        shown.update(0)  # a gauge that is not set again is told once
        time.sleep(0.5)
        with urllib.request.urlopen(address) as answer:
            text = answer.read().decode()
        told = [line for line in text.splitlines() if not line.startswith("#")]
        for words, line in itertools.product(wanted, told):
            if all(word in line for word in words):
                found[words] = float(line.rpartition(" ")[2])
    fleet.close()
    assert found == wanted


@pytest.mark.ray
@pytest.mark.usefixtures("own_cluster")
def test_killed_actors_and_hosts_cost_no_clip(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    names = [f"clip{i}" for i in range(40)]
    killed: list[str] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 4 and not over.wait(0.7):
            victims = [
                process
                for process in psutil.Process().children(recursive=True)
                if "_Worker" in process.name() or "pipeline.host_main" in process.cmdline()
            ]
            if victims:
                victim = victims[len(killed) % len(victims)]
                killed.append(victim.name())
                victim.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    batches: list[Batch] = []
    try:
        run_on_ray(Work((Length(diary, pause_s=0.2),), {}, limits=LIMITS), names, batches)
    finally:
        over.set()
        thread.join()
    assert len(killed) >= 2
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*names)}
    done = [by_id[c] for batch in batches for c, _, _ in batch.outcomes]
    assert sorted(done) == sorted(names)


@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.parametrize(("name", "error"), [("full", InputError), ("bug", StageError)])
def test_what_stops_the_job_arrives_as_it_was_raised(
    request: pytest.FixtureRequest, runner: str, name: str, error: type[Exception]
) -> None:
    run = run_here
    if runner == "ray":
        request.getfixturevalue("own_cluster")
        run = run_on_ray
    with pytest.raises(error) as caught:
        run(Work((Length(),), {}), [name], [])
    assert name in str(caught.value).splitlines()[-1]
    assert type(caught.value) is error


def test_hosts_do_not_outlive_a_killed_driver(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from toys import Length, tasks\n"
        "from pipeline.host import Host; from pipeline.work import Unit, Work\n"
        f"host = Host(Work((Length(Path({str(diary)!r})),), {{}}))\n"
        "host.run(Unit(0, tuple(tasks('clip', 'hang'))), lambda: False)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    until = time.monotonic() + 30
    while not diary.exists() or "hang" not in diary.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    host = int(diary.read_text().split()[-1])
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    while psutil.pid_exists(host) and psutil.Process(host).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
