"""The loop over Ray actors, each of which owns a host. The only file of this room that knows Ray.

An actor runs no native code: it watches its host. It never restarts and its calls are never
retried by Ray: the driver knows the units, and so replaces and retries (`units.py`).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import state as cluster_state  # as Ray Train looks for drained nodes
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from pipeline.host import Host
from pipeline.lifeline import module_path
from pipeline.ray_metrics import FleetMetrics
from pipeline.units import Finished, Lost
from pipeline.work import Result, Unit, Work, WorkerKind

IN_FLIGHT = 2
"""Units an actor has at once: the next one is there when the first is done."""

_LOOK_S = 1.0
"""Between two looks at which nodes are drained: they have half a minute or more (ours)."""

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where a driver that was submitted finds what its job was given."""

_GONE = (ActorDiedError, ActorUnavailableError, RayActorError, WorkerCrashedError, ObjectLostError)


@contextmanager
def cluster() -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS (set inside a Ray job as well), else starts one of our own.

    Never a bare init: on a shared machine that joins a stranger's cluster.
    """
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": _variables()},
    }
    if address:
        ray.init(address=address, **quiet)
        try:
            yield
        finally:
            ray.shutdown()
        return
    folder = tempfile.mkdtemp(prefix="cvx-ray-")  # a socket's path has to stay below 108 bytes
    ray.init(address="local", _temp_dir=folder, include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _variables() -> dict[str, str]:
    """What the workers' environment has, but for what our own Ray job gives them: Ray refuses two.

    Other machines unpack the job's code in another folder, which Ray puts in front.
    """
    ours = {"PYTHONPATH": module_path(), "OMP_WAIT_POLICY": "PASSIVE"}
    job = json.loads(os.environ.get(_JOB) or "{}")
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: text for name, text in ours.items() if name not in given}


@dataclass(frozen=True, slots=True)
class _Place:
    """A node: its address, for people, and Ray's name for it."""

    address: str
    node: str


class _Worker:
    """An actor: a host, and a second thread that can be asked to stop it."""

    def __init__(self, work: Work, decoders: int) -> None:
        self._host = Host(work, decoders)
        self._stopped = False

    def ready(self) -> _Place:
        """Where it found a place, once its models are loaded."""
        self._host.start()
        return _Place(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id())

    def stop(self) -> None:
        self._stopped = True

    def run(self, unit: Unit) -> Result:
        if self._stopped:
            return Result()
        return self._host.run(unit, lambda: self._stopped)


_CONTRACT: dict[str, Any] = {
    "max_restarts": 0,
    "max_task_retries": 0,
    "concurrency_groups": {"control": 1},
}
_remote_worker: Any = ray.remote(**_CONTRACT)(_Worker)


@dataclass(slots=True)
class _Actor:
    """place: known once it is ready; leaving: its node goes, so it gets no more and is replaced."""

    handle: Any
    kind: WorkerKind
    place: _Place | None = None
    leaving: bool = False
    flying: dict[Any, Unit] = field(default_factory=dict)

    @property
    def takes(self) -> bool:
        """Whether it may be given units."""
        return self.place is not None and not self.leaving


class RayFleet:
    """Actors of one or several kinds, all fed from one queue; inside `cluster()`."""

    def __init__(self, work: Work, kinds: Sequence[WorkerKind]) -> None:
        self._work = ray.put(work)
        self._names = itertools.count()
        self._actors: dict[str, _Actor] = {}
        self._asking: dict[Any, str] = {}
        self._looked = time.monotonic()
        self._metrics = FleetMetrics()
        for kind in kinds:
            for _ in range(kind.count or _room(kind)):
                self._hire(kind)

    def free(self) -> list[str]:
        placed = {name: len(actor.flying) for name, actor in self._actors.items() if actor.takes}
        return [name for depth in range(IN_FLIGHT) for name, n in placed.items() if n <= depth]

    def idle(self) -> list[str]:
        return [name for name, actor in self._actors.items() if actor.takes and not actor.flying]

    def size(self) -> int:
        return sum(actor.takes for actor in self._actors.values())

    def submit(self, worker: str, unit: Unit) -> None:
        actor = self._actors[worker]
        actor.flying[actor.handle.run.remote(unit)] = unit

    def wait(self, timeout_s: float) -> list[Finished | Lost]:
        self._leave_nodes_that_go()
        flying = {ref: name for name, actor in self._actors.items() for ref in actor.flying}
        refs = [*flying, *self._asking]
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        more, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        events: list[Finished | Lost] = []
        gone: set[str] = set()
        for ref in {*ready, *more}:
            name = self._asking.pop(ref, None) or flying[ref]
            try:
                answer = ray.get(ref)
            except _GONE:
                gone.add(name)
                continue
            except RayTaskError as error:
                raise error.cause from None  # Ray's own message wraps it in its traceback
            actor = self._actors[name]
            if isinstance(answer, _Place):
                actor.place = answer
            else:
                answer.node = actor.place.address if actor.place else ""
                events.append(Finished(name, actor.flying.pop(ref), answer))
                self._metrics.came_back(answer)
        for name in gone:
            self.retire(name)
            events.append(Lost(name))
        self._let_go()
        self._metrics.look(
            placed=self.size(),
            waiting=len(self._asking),
            units=sum(len(actor.flying) for actor in self._actors.values()),
        )
        return events

    def retire(self, worker: str) -> None:
        actor = self._actors[worker]
        self._metrics.lost(actor.place.address if actor.place else "")
        self._dismiss(worker)
        if not actor.leaving:
            self._hire(actor.kind)

    def drain(self) -> None:
        for actor in self._actors.values():
            actor.handle.stop.options(concurrency_group="control").remote()

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors.clear()

    def _leave_nodes_that_go(self) -> None:
        """Takes back what actors have whose node is drained, as a spot machine is before it goes.

        They return the clips that they have done; the others, and new actors, go elsewhere.
        """
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        going = cluster_state.get_draining_nodes()
        for actor in list(self._actors.values()):
            if actor.takes and actor.place is not None and actor.place.node in going:
                actor.leaving = True
                actor.handle.stop.options(concurrency_group="control").remote()
                self._hire(actor.kind)

    def _let_go(self) -> None:
        """Ends the actors that have returned everything: a node without any may go at once."""
        for name, actor in list(self._actors.items()):
            if actor.leaving and not actor.flying:
                self._dismiss(name)

    def _dismiss(self, worker: str) -> None:
        actor = self._actors.pop(worker)
        self._asking = {ref: name for ref, name in self._asking.items() if name != worker}
        ray.kill(actor.handle)

    def _hire(self, kind: WorkerKind) -> None:
        name = f"worker-{next(self._names)}"
        placed = _remote_worker.options(num_cpus=kind.cpus, num_gpus=kind.gpus)
        handle = placed.remote(self._work, kind.decoders)
        self._actors[name] = _Actor(handle, kind)
        self._asking[handle.ready.remote()] = name


def _room(kind: WorkerKind) -> int:
    """How many workers of a kind the cluster has room for now; at least one, which may wait."""
    total = ray.cluster_resources()
    rooms = [int(total.get("CPU", 0) // kind.cpus)] if kind.cpus else []
    if kind.gpus:
        rooms.append(int(total.get("GPU", 0) // kind.gpus))
    return max(1, min(rooms, default=1))
