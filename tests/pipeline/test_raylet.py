"""Machines that join, leave or die in the middle of a pass cost work, and no clip."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from toys import Length, tasks

from pipeline.clip import Measurement
from pipeline.units import Batch, Loop, cut
from pipeline.work import Task, Work, WorkerKind

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

MEMORY = 80 * 2**20
UNIT = 2


@dataclass
class Machines:
    """A cluster: a head, and further machines that are started as a person starts them."""

    head: Cluster
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, wait: bool = True) -> subprocess.Popen[bytes]:
        """One more with one CPU; one at a time, for two would take the same socket."""
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"]
        command += [f"--address={self.head.address}", f"--object-store-memory={MEMORY}"]
        log = self.folder / str(len(self.started))
        with log.open("wb") as to:
            process = subprocess.Popen(
                [*command, "--dashboard-agent-listen-port=0"], stdout=to, stderr=to
            )
        self.started.append(process)
        until = time.monotonic() + 60
        while wait and "Ray runtime started" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """As when the power goes: its raylet is killed, and all others of it follow."""
        for child in psutil.Process(process.pid).children(recursive=True):
            if "raylet" in child.name():
                child.kill()

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                self.end(process)
                process.wait(30)
        self.head.shutdown()


@dataclass
class Pass:
    """A pass that goes on until `over()`: its clips, what it recorded, what its workers noted.

    change: what happens to the machines once so many workers have measured something.
    """

    diary: Path
    workers: int
    change: Callable[[], object]
    over: Callable[[], bool]
    names: list[str] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    changed: bool = False

    def clips(self) -> Iterator[Task]:
        until = time.monotonic() + 120
        while not (self.changed and self.over()):
            assert time.monotonic() < until, f"{self.processes()} in {len(self.names)} clips"
            self.names.append(f"clip{len(self.names)}")
            yield from tasks(self.names[-1])

    def record(self, batch: Batch) -> None:
        self.batches.append(batch)
        if not self.changed and len(self.processes()) == self.workers:
            self.change()
            self.changed = True

    def calls(self) -> list[str]:
        return [clip for clip, _ in self._noted()]

    def processes(self) -> set[str]:
        return {process for _, process in self._noted()}

    def _noted(self) -> list[tuple[str, str]]:
        pairs = [line.split() for line in self.diary.read_text().splitlines()]
        return [(clip, process) for clip, process in pairs if clip != "loads"]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": MEMORY}
    with tempfile.TemporaryDirectory() as folder:
        head = Cluster(head_node_args={**node, "include_dashboard": False}, initialize_head=True)
        started = Machines(head, Path(folder))
        yield started
        started.close()


def run(machines: Machines, monkeypatch: pytest.MonkeyPatch, over: Pass) -> None:
    """Every clip is measured, and recorded once."""
    from pipeline.ray_runner import RayFleet, cluster

    monkeypatch.setenv("RAY_ADDRESS", str(machines.head.address))
    with cluster():
        work = Work((Length(over.diary, pause_s=0.2),), {})
        fleet = RayFleet(work, [WorkerKind(count=over.workers)])
        assert Loop(fleet, over.record, lambda: False).run(cut(over.clips(), UNIT))
        fleet.close()
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*over.names)}
    rows = [(by_id[c], outcome) for batch in over.batches for c, _, outcome in batch.outcomes]
    assert sorted(name for name, _ in rows) == sorted(over.names)
    assert all(isinstance(outcome, Measurement) for _, outcome in rows)


@pytest.mark.ray
def test_of_three_machines_one_dies_and_one_joins(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = [machines.add(), machines.add()]

    def one_for_another() -> None:
        machines.end(spare[0])
        spare.append(machines.add(wait=False))

    def joined() -> bool:
        return len(over.processes()) > 3

    over = Pass(tmp_path / "diary", 3, one_for_another, joined)
    run(machines, monkeypatch, over)
    for machine in spare[1:]:
        machines.end(machine)
        machine.wait(60)
    assert len(over.names) <= len(over.calls()) <= len(over.names) + 2 * UNIT


@pytest.mark.ray
def test_a_machine_that_gets_sigterm_returns_what_it_has_before_it_goes(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "60")
    spot = machines.add()
    over = Pass(tmp_path / "diary", 2, spot.terminate, lambda: spot.poll() is not None)
    run(machines, monkeypatch, over)
    # Its host runs on until it is closed, and may have opened one more clip by then.
    again = Counter(over.calls()) - Counter(over.names)
    assert again.total() <= 1, "what it had done came back, of two units in flight"
