"""A hundred random kills and what they change: nothing.

`nice python -m benchmarks.chaos [kills] [seed] [local|ray]`: runs of benchmarks/chaos_run.py, here
and on a Ray cluster of three raylets, of which a driver, actor, host, decoder or raylet is killed
now and then (SIGKILL, no warning); what has died is started again, until the run is done. Then
every clip has one outcome in each stage that it came to, shards and latents are those of an
unbroken run to the byte (so the code must not change meanwhile), and the calls of `measure` beyond
the least are at most what a kill may cost: what its worker had in flight; for a driver, what all
workers had, and what came since the last flush.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import psutil

from benchmarks import provenance
from benchmarks.chaos_run import FLUSH_S, UNIT, WORKERS, curation_of
from benchmarks.chaos_stages import PAUSE_S

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

CLIPS, KILLS, SEED = 240, 100, 20261129
IN_FLIGHT = 2
KINDS = {
    "local": ("driver", "host", "host", "decoder", "decoder"),
    "ray": ("driver", "actor", "actor", "host", "decoder", "raylet"),
}
"""What may be killed, as often as it stands here: a driver takes longest to come back."""
PAUSE_S_AT_MOST = 6.0
PACKAGES = ("ray", "pyarrow")
NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}
_MODULES = {"pipeline.host_main": "host", "pipeline.decoder_main": "decoder"}


@dataclass
class Episode:
    """One run from nothing to its end. kills: by kind; calls: of measure; units: of the runs."""

    name: str
    runner: str
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def allowed(self) -> int:
        """Calls of measure that these kills may cost beyond the least."""
        flying = IN_FLIGHT * UNIT if self.runner == "ray" else UNIT
        flushed = round(FLUSH_S / PAUSE_S)
        workers = WORKERS if self.runner == "ray" else 1
        each = {"driver": workers * (flying + flushed), "actor": flying, "raylet": flying}
        return sum(count * each.get(kind, UNIT) for kind, count in self.kills.items())


class Machines:
    """Three raylets, one of which may be killed and is replaced."""

    def __init__(self, cluster: Cluster, spare: list[Any]) -> None:
        self.address = str(cluster.address)
        self._cluster, self._spare = cluster, spare

    def replace_one(self, chance: random.Random) -> None:
        node = self._spare.pop(chance.randrange(len(self._spare)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._spare.append(self._cluster.add_node(**NODE))


def main() -> int:
    """Writes benchmarks/results/chaos.json; 1 when a kill changed anything."""
    kills = int(sys.argv[1]) if sys.argv[1:] else KILLS
    seed = int(sys.argv[2]) if sys.argv[2:] else SEED
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="cvx-chaos-"))
    make_clips(folder)
    started = time.perf_counter()
    whole = Episode("unbroken", "local")
    finish_run(folder, whole, None, chance, 0, 0.0)
    least = calls(folder, whole)
    print(f"unbroken: {whole.seconds:.1f} s, {least} calls of measure, seed {seed}", flush=True)
    episodes: list[dict[str, Any]] = []
    done: Counter[str] = Counter()
    only = sys.argv[3:4]
    shares = {"local": kills // 2, "ray": kills - kills // 2}
    for runner, share in {only[0]: kills}.items() if only else shares.items():
        with machines() if runner == "ray" else here() as there:
            left = share
            while left > 0:
                one = Episode(f"{runner}-{len(episodes)}", runner)
                finish_run(
                    folder, one, there, chance, left, min(whole.seconds / 5, PAUSE_S_AT_MOST)
                )
                left -= one.kills.total()
                done.update(one.kills)
                episodes.append(judge(folder, one, whole, least))
                print(json.dumps(episodes[-1]), flush=True)
                shutil.rmtree(folder / one.name)
    wrong = [episode for episode in episodes if episode["wrong"]]
    figures = {
        "seed": seed,
        "clips": CLIPS,
        "kills": done.total(),
        "by_kind": dict(done),
        "runs": len(episodes),
        "least_calls": least,
        "extra_calls": sum(episode["extra"] for episode in episodes),
        "allowed_extra_calls": sum(episode["allowed"] for episode in episodes),
        "seconds": time.perf_counter() - started,
        "wrong": wrong,
        "passed": not wrong,
        "episodes": episodes,
    }
    shutil.rmtree(folder)
    print(provenance.write("_".join(["chaos", *only]), PACKAGES, figures))
    return 1 if wrong else 0


def make_clips(folder: Path) -> None:
    """Eight small clips under many names."""
    (folder / "videos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(CLIPS):
        path = folder / "videos" / f"clip{number}.mp4"
        if number >= 8:
            path.hardlink_to(folder / "videos" / f"clip{number % 8}.mp4")
            continue
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=24)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for _ in range(8):
                image = rng.integers(0, 256, (64, 64, 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
    names = "".join(f"clip{number}.mp4,Clip {number}.\n" for number in range(CLIPS))
    (folder / "clips.csv").write_text(f"video,caption\n{names}")


def finish_run(
    folder: Path,
    episode: Episode,
    there: Machines | None,
    chance: random.Random,
    kills: int,
    pause_s: float,
) -> None:
    """Starts a run until it is done; kills something after pauses of up to so many seconds."""
    (folder / episode.name).mkdir()
    began = time.monotonic()
    run = start(folder, episode, there)
    while run.poll() is None or run.returncode < 0:
        assert time.monotonic() < began + 1800, f"{episode.name} does not end: {episode.kills}"
        if run.poll() is not None:
            run = start(folder, episode, there)
        time.sleep(chance.uniform(0.1, pause_s) if kills else 0.1)
        if episode.kills.total() < kills and run.poll() is None:
            kind = chance.choice(KINDS[episode.runner])
            if kill(run, kind, there, chance):
                episode.kills[kind] += 1
    episode.seconds = time.monotonic() - began
    assert run.returncode == 0, (folder / episode.name / "said").read_text()[-3000:]


def start(folder: Path, episode: Episode, there: Machines | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    if there is not None:
        environment["RAY_ADDRESS"] = there.address
    command = [sys.executable, "-m", "benchmarks.chaos_run", str(folder)]
    command += [episode.name, episode.runner]
    with (folder / episode.name / "said").open("ab") as said:
        return subprocess.Popen(
            command,
            cwd=provenance.ROOT,
            env=environment,
            stdout=said,
            stderr=said,
        )


def kill(run: subprocess.Popen, kind: str, there: Machines | None, chance: random.Random) -> bool:
    """Kills one of this kind; False when there is none just now."""
    if kind == "driver":
        run.kill()
        run.wait()
        return True
    if kind == "raylet":
        assert there is not None
        there.replace_one(chance)
        return True
    victims = [p for p in psutil.Process().children(recursive=True) if role(p) == kind]
    if not victims:
        return False
    try:
        chance.choice(victims).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def role(process: psutil.Process) -> str | None:
    try:
        line = process.cmdline()
    except psutil.Error:
        return None
    if any(word.startswith("ray::_Worker") for word in line):
        return "actor"
    return next((_MODULES[word] for word in line if word in _MODULES), None)


def calls(folder: Path, episode: Episode) -> int:
    return len((folder / episode.name / "diary").read_text().splitlines())


def judge(folder: Path, one: Episode, whole: Episode, least: int) -> dict[str, Any]:
    """What a broken run came to, beside the unbroken one."""
    wrong = []
    if facts(folder, one) != facts(folder, whole):
        wrong.append("facts")
    for name in ("shards", "latents"):
        if digests(folder / one.name / name) != digests(folder / whole.name / name):
            wrong.append(name)
    extra, allowed = calls(folder, one) - least, one.allowed()
    if extra > allowed:
        wrong.append("calls")
    return {
        "run": one.name,
        "kills": dict(one.kills),
        "extra": extra,
        "allowed": allowed,
        "seconds": round(one.seconds, 1),
        "wrong": wrong,
    }


def facts(folder: Path, episode: Episode) -> Mapping[str, list[dict[str, Any]]]:
    """Stage -> its rows by clip: of the house's own view, in which every clip stands once."""
    curation = curation_of(folder, episode.name)
    view = {}
    for stage in curation.stages:
        table = curation.ledger.facts(stage.name).sort_by("clip_id")
        ids = table["clip_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        view[stage.name] = table.to_pylist()
    return view


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


@contextmanager
def here() -> Iterator[None]:
    yield None


@contextmanager
def machines() -> Iterator[Machines]:
    """A head without workers, and two machines of one CPU."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        yield Machines(cluster, [cluster.add_node(**NODE) for _ in range(WORKERS)])
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
