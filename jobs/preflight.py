"""What has to be true before a pass can run, each looked at once and said in a line."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.estimate import Crew, Machine, room
from jobs.house import House
from jobs.reading import facts_url
from pipeline import storage
from pipeline.clip import Clip, Member
from pipeline.container import DecodeError, read_header
from pipeline.errors import InputError
from pipeline.stage import Stage
from pipeline.weights import find

_OPENED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Said:
    """One finding. A pass could not run with a problem; a note is worth knowing."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind:<8} {self.text}"


def ok(text: str) -> Said:
    return Said("ok", text)


def note(text: str) -> Said:
    return Said("note", text)


def problem(text: str) -> Said:
    return Said("problem", text)


def check_store(url: str) -> None:
    """InputError unless files can be put there, and a second writer of a name is told that it is
    there: what is built, and who holds a lease, hangs on it.
    """
    place = storage.join(url, f"preflight-{secrets.token_hex(8)}")
    try:
        if not storage.create(place, b"first"):
            raise InputError(f"{url}: a new file is said to be there already; another store?")
        if storage.create(place, b"second") or storage.read(place) != b"first":
            raise InputError(
                f"{url}: a second writer of one name was not refused; wanted a store with "
                "conditional writes (If-None-Match: * on S3)"
            )
    except OSError as error:
        raise InputError(f"{url}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):  # what is wrong with the place has been said
            storage.remove(place)


def places(house: House) -> Iterator[Said]:
    """Whether facts and results can be written."""
    for key, url in (("out", house.out), ("facts", facts_url(house.run))):
        try:
            check_store(url)
        except InputError as error:
            yield problem(f"{key}: {error}")
        else:
            yield ok(f"{key}: {url} can be written, and a name that is there is not overwritten")


def has_room(url: str, wanted_gb: float) -> Said:
    """Whether so much fits there; of an object store nothing is known."""
    path = storage.local(url)
    if path is None:
        return note(f"{url}: {wanted_gb:.1f} GB will come; how much fits in there is not known")
    there = next(
        folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()
    )
    free_gb = shutil.disk_usage(there).free / 1e9
    text = f"{url}: {wanted_gb:.1f} GB will come, {free_gb:.1f} GB are free"
    return ok(text) if wanted_gb < free_gb else problem(text)


def clips_open(clips: Sequence[Clip]) -> Said:
    """Whether the videos can be read: of a few, the header."""
    started = time.monotonic()
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        errors = [error for error in pool.map(_opens, clips) if error]
    took = f"{len(clips) - len(errors)} of {len(clips)} clips could be opened"
    if len(errors) == len(clips):
        return problem(f"videos: {took}; {errors[0]}")
    said = f"videos: {took}, in {time.monotonic() - started:.1f} s"
    return note(f"{said}; one that could not: {errors[0]}") if errors else ok(said)


def _opens(clip: Clip) -> str:
    """What is wrong with a clip, or "". Of one in a zip or a store, whether its bytes are there."""
    try:
        if isinstance(clip.path, Member):
            storage.read_range(clip.path.pieces[0][0], clip.path.offset, 1)
        elif (path := storage.local(clip.path)) is not None:
            read_header(str(path))
        else:
            storage.read_range(clip.path, 0, 1)
    except (DecodeError, OSError) as error:
        return f"{clip.video}: {error}"
    return ""


def weights(house: House) -> Iterator[Said]:
    """Whether what the networks load is on this machine, and servers answer."""
    networks = 0
    for stage in house.curation.stages:
        if not isinstance(stage, Stage):
            continue
        networks += bool(stage.weights())
        try:
            for wanted in stage.weights():
                find(wanted)
            stage.check()
        except InputError as error:
            elsewhere = "RAY_ADDRESS" in os.environ and stage.weights()
            yield (note if elsewhere else problem)(f"{stage.name}: {error}")
    yield ok(f"weights: {networks} of {len(house.curation.stages)} stages have networks")


def machines() -> list[Machine]:
    """The nodes of the cluster of RAY_ADDRESS; else this machine."""
    if not os.environ.get("RAY_ADDRESS"):
        gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        return [Machine(os.cpu_count() or 1, gpus)]
    import ray

    from pipeline.ray_runner import cluster

    with cluster():
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(found.get("CPU", 0), found.get("GPU", 0)) for found in resources]


def crew(house: House, found: Sequence[Machine]) -> Crew:
    """The workers of the run, as many as there is room for."""
    kinds = house.run.workers
    if house.run.engine.runner == "local":
        return Crew(((kinds[0], 1),))
    rooms = [room(kind, found) for kind in kinds]
    return Crew(
        tuple(
            (kind, min(kind.count or most, most)) for kind, most in zip(kinds, rooms, strict=True)
        )
    )


def placed(house: House, found: Sequence[Machine]) -> Iterator[Said]:
    """Which worker, and which stage, finds no place, and why."""
    run = house.run
    largest = (max((m.cpus for m in found), default=0), max((m.gpus for m in found), default=0))
    most = f"{len(found)} machine(s), the largest of {largest[0]:g} CPUs and {largest[1]:g} GPUs"
    if run.engine.runner == "ray":
        for number, kind in enumerate(run.workers):
            asks = f"workers[{number}]: cpus = {kind.cpus:g}, gpus = {kind.gpus:g}"
            fits = room(kind, found)
            if not fits:
                yield problem(f"{asks}: none has a place on {most}; it would wait for ever")
            elif kind.count > fits:
                yield note(f"{asks}: {fits} of {kind.count} have a place on {most}; others wait")
            else:
                yield ok(f"{asks}: {kind.count or fits} have a place on {most}")
    if any(kind.gpus for kind in run.workers) or any(machine.gpus for machine in found):
        return
    for stage in house.curation.stages:
        if isinstance(stage, Stage) and stage.weights():
            if "cuda" in _devices(getattr(run, stage.name, None)):
                yield problem(f'{stage.name}: device = "cuda", and no worker asks for gpus')
            else:
                yield note(f"{stage.name}: a network without a GPU: slow")


def _devices(settings: Any) -> set[str]:
    """Every `device` in a stage's settings."""
    tables = [asdict(settings)] if settings is not None else []
    devices: set[str] = set()
    while tables:
        table = tables.pop()
        tables += [value for value in table.values() if isinstance(value, Mapping)]
        devices |= {table["device"]} if "device" in table else set()
    return devices


def usable(house: House) -> np.ndarray:
    """Manifest rows that wait for anything at all."""
    return np.flatnonzero(house.curation.verdicts().are("pending"))
