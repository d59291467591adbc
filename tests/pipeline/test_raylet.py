"""A machine that leaves the cluster in the middle of a pass costs work, and no clip."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from toys import Length, tasks

from pipeline.clip import Measurement
from pipeline.units import Batch, Loop, cut
from pipeline.work import Work, WorkerKind


@pytest.mark.ray
def test_a_lost_raylet_blames_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    from pipeline.ray_runner import RayFleet, cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    machines = Cluster(initialize_head=True, head_node_args=node)
    spare = machines.add_node(**node)
    monkeypatch.setenv("RAY_ADDRESS", str(machines.address))
    diary = tmp_path / "diary"
    names = [f"clip{i}" for i in range(20)]
    batches: list[Batch] = []
    leave = threading.Event()

    def record(batch: Batch) -> None:
        batches.append(batch)
        leave.set()

    def remove() -> None:
        leave.wait(60)
        machines.remove_node(spare, allow_graceful=False)

    thread = threading.Thread(target=remove)
    try:
        with cluster():
            fleet = RayFleet(Work((Length(diary, pause_s=0.3),), {}), [WorkerKind(count=2)])
            thread.start()
            assert Loop(fleet, record, lambda: False).run(cut(tasks(*names), 3))
            thread.join()
            fleet.close()
    finally:
        machines.shutdown()
    by_id = {task.clip.clip_id: task.clip.video for task in tasks(*names)}
    rows = [(by_id[c], outcome) for batch in batches for c, _, outcome in batch.outcomes]
    assert sorted(name for name, _ in rows) == sorted(names)
    assert all(isinstance(outcome, Measurement) for _, outcome in rows)
    calls = [line.split()[0] for line in diary.read_text().splitlines()]
    assert len({line.split()[1] for line in diary.read_text().splitlines()}) >= 2
    assert len(names) <= len(calls) <= len(names) + 2 * 3
