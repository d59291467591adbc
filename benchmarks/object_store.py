"""What a run in an object store asks of it, and what it makes of a store that fails.

    python -m benchmarks.object_store        # some minutes on two quiet cores

The store is moto behind the faulty proxy of the tests, on this machine: requests are counted, times
mean nothing. Written: requests per clip, what 10 kills with faults changed, who wins a race of
eight writers, and the memory of a process that writes and reads for long.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from benchmarks import provenance
from jobs.synthetic.plan import make_plan
from jobs.synthetic.render import render
from model.text import build_tiny
from tests.racing_writers import content

SEED = 20261129
FEW, MANY = 2, 6
KILLS = {"dataset": 4, "latents": 2}
RACES = 3
WRITES = 1_000
LARGE_WRITES = 8
JOBS = tuple(KILLS)
LOCAL = fsspec.filesystem("file")
SHARES = {
    **{"InternalError": 0.03, "SlowDown": 0.03, "reset before": 0.03, "reset after": 0.03},
    **{"slow": 0.01, "cut": 0.03},
}
SETTINGS = {"longest_pause_s": 0.5, "config_kwargs": {"read_timeout": 4}}
SLOW_S = 6.0
RUN_FILE = """
out = "{root}/runs/one"
facts = "{root}/facts/one"
[corpus]
manifest = "{root}/corpus/clips.csv"
videos = "{root}/corpus/videos"
[engine]
runner = "local"
flush_s = 1.0
[filters.probe.short_side]
min = 256
[latents]
codec = "dct"
text = "{text}"
width = 96
height = 64
max_tokens = 64
[latents.placement]
dtype = "f32"
"""
_MEMORY = """
import json, os, psutil
from pipeline import storage
me, url, said = psutil.Process(), os.environ["URL"], []
def note(): said.append(round(me.memory_info().rss / 2**20))
for number in range({writes}):
    storage.create(f"{{url}}/small/{{number}}", os.urandom(20_000))
    storage.read(f"{{url}}/small/{{number}}")
    if number % ({writes} // 10) == {writes} // 10 - 1: note()
for number in range({large}):
    storage.write(f"{{url}}/large", os.urandom(80 << 20))
    if number % ({large} // 4) == {large} // 4 - 1: note()
print(json.dumps(said))
"""


@dataclass
class Store:
    """A server of its own. environment: leads a process to it; files: what lies there, past the
    proxy; told: what happened, once it has ended.
    """

    environment: dict[str, str]
    files: AbstractFileSystem
    told: dict[str, Any]

    @property
    def requests(self) -> int:
        return sum(self.told["requests"].values())


@contextmanager
def store(**faults: Any) -> Iterator[Store]:
    """One that runs while the block does."""
    server = subprocess.Popen(
        [sys.executable, "tests/s3_server.py", json.dumps(faults)],
        cwd=provenance.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    said = json.loads(server.stdout.readline())
    leads = {**said["environment"], "FSSPEC_S3": json.dumps(SETTINGS)}
    files = fsspec.filesystem(
        "s3",
        endpoint_url=said["behind"],
        key=leads["AWS_ACCESS_KEY_ID"],
        secret=leads["AWS_SECRET_ACCESS_KEY"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    found = Store({**os.environ, **leads, "OMP_WAIT_POLICY": "PASSIVE"}, files, {})
    try:
        yield found
    finally:
        found.told.update(json.loads(server.communicate()[0]))


def make_corpus(root: Path, clips: int) -> None:
    """Clips that will be kept, and a text encoder beside them."""
    plans = [plan for plan in make_plan(0) if plan.reason == "kept"][:clips]
    render(plans, root / "corpus", 2, lambda done: None)
    build_tiny(str(root / "text"), [plan.caption for plan in plans])


def start(job: str, root: str, at: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A job over the corpus below root; at: the folder with the text encoder."""
    config = at / "run.toml"
    config.write_text(RUN_FILE.format(root=root, text=at / "text"))
    return subprocess.Popen(
        [sys.executable, "-m", f"jobs.{job}", "--config", str(config)],
        cwd=provenance.ROOT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: str, root: str, at: Path, environment: Mapping[str, str]) -> None:
    process = start(job, root, at, environment)
    said, _ = process.communicate(timeout=1800)
    if process.returncode != 0:
        raise RuntimeError(f"{job}: {said}")


def built(files: AbstractFileSystem, root: str) -> dict[str, str]:
    """Name -> sha256 of the shards and latents below root."""
    base = f"{root}/runs/one".removeprefix("s3://")
    found = [name for kind in ("shards", "latents") for name in files.find(f"{base}/{kind}")]
    contents: Iterator[Any] = map(files.cat_file, found)
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    return {name.removeprefix(base): digest for name, digest in zip(found, hashes, strict=True)}


def undisturbed(at: Path) -> tuple[Counter[str], bool]:
    """Requests of one run in a store, by method; whether it built what a run on the disk did."""
    finish_all(str(at), at, os.environ)
    with store() as there:
        there.files.put(f"{at}/corpus", f"corpus/{at.name}/corpus", recursive=True)
        finish_all(f"s3://corpus/{at.name}", at, there.environment)
        same = built(there.files, f"s3://corpus/{at.name}") == built(LOCAL, str(at))
    return Counter(there.told["requests"]), same


def finish_all(root: str, at: Path, environment: Mapping[str, str]) -> None:
    for job in JOBS:
        finish(job, root, at, environment)


def disturbed(at: Path) -> dict[str, Any]:
    """The same run, with faults, and drivers killed after a random number of requests."""
    chance, root = random.Random(SEED), f"s3://corpus/{at.name}"
    killed = Counter[str]()
    with store(seed=SEED, shares=SHARES, slow_s=SLOW_S) as there:
        there.files.put(f"{at}/corpus", f"corpus/{at.name}/corpus", recursive=True)
        for job, kills in KILLS.items():
            while killed[job] < kills:
                process = start(job, root, at, there.environment)
                try:
                    process.wait(chance.uniform(3, 25))
                    break  # it was done before
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed[job] += 1
            finish(job, root, at, there.environment)
        same = built(there.files, root) == built(LOCAL, str(at))
    return {
        "seed": SEED,
        "kills": killed,
        "shards_and_latents_identical_to_the_disk": same,
        **there.told,
    }


def races() -> dict[str, Any]:
    """Eight processes create one object, small or in parts, through a store that fails."""
    wins = Counter[str]()
    with store(seed=SEED, shares=SHARES, slow_s=SLOW_S) as there:
        parts = {**SETTINGS, "whole_bytes": 5 << 20, "part_bytes": 5 << 20}
        environment = {
            **there.environment,
            "FSSPEC_S3": json.dumps(parts),
            "PYTHONPATH": str(provenance.ROOT),
        }
        for number in range(RACES):
            for size in (20_000, 11 << 20):
                url = f"s3://corpus/race/{number}-{size}"
                race = [sys.executable, "tests/racing_writers.py", url, str(size)]
                done = subprocess.run(
                    race,
                    cwd=provenance.ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                won = done.stdout.split()
                whole = there.files.cat_file(url) == content(size, int(won[0]))
                wins[f"{len(won)} of 8 won, {'whole' if whole else 'BROKEN'}"] += 1
    return {"races": 2 * RACES, "ends": wins, **there.told}


def memory() -> dict[str, Any]:
    """MiB resident of a process over many writes and reads: after each tenth, then large ones."""
    with store() as there:
        work = _MEMORY.format(writes=WRITES, large=LARGE_WRITES)
        environment = {**there.environment, "URL": "s3://corpus/memory"}
        done = subprocess.run(
            [sys.executable, "-c", work],
            cwd=provenance.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    said = json.loads(done.stdout)
    return {
        "small_writes_and_reads": WRITES,
        "rss_mib_after_each_tenth": said[:10],
        "large_writes_of_80_mib": LARGE_WRITES,
        "rss_mib_after_each_quarter": said[10:],
    }


def requests(few: Path, many: Path) -> dict[str, Any]:
    """What a clip costs: the slope between two corpora; the rest is of the run as a whole."""
    make_corpus(many, MANY)
    of_few, few_same = undisturbed(few)
    of_many, many_same = undisturbed(many)
    per_clip = {m: round((of_many[m] - of_few[m]) / (MANY - FEW), 2) for m in of_many}
    return {
        "of": f"{' and '.join(JOBS)}, {FEW} and {MANY} clips, all kept",
        "few": of_few,
        "many": of_many,
        "per_clip": per_clip,
        "per_clip_all": round(sum(per_clip.values()), 2),
        "identical_to_the_disk": few_same and many_same,
    }


def main() -> None:
    figures: dict[str, Any] = {}
    packages = ["s3fs", "aiobotocore", "fsspec", "moto"]
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        make_corpus(few, FEW)
        parts = {
            "memory": memory,
            "races": races,
            "requests": lambda: requests(few, many),
            "disturbed": lambda: disturbed(few),
        }
        for name, measure in parts.items():
            figures[name] = measure()
            print(json.dumps({name: figures[name]}, indent=1), flush=True)
            provenance.write("object_store", packages, figures)


if __name__ == "__main__":
    main()
