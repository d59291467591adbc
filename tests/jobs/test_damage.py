"""What is damaged or missing is named, and it alone is made again, to the byte; a disk that fills
costs nothing but time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import (
    dataset,
    duplicates,
    entities,
    latents,
    probe,
    repair,
    retry,
    samples,
    score,
    segment,
    shards,
    verify,
)

RUN = """
out = "{folder}/runs/one"
[corpus]
manifest = "{folder}/corpus.csv"
[engine]
runner = "local"
[filters.probe.short_side]
min = 160
[filters.segment.crop_short_side_px]
min = 32
[sample]
num_frames = 5
[sample.video]
width = 96
height = 64
[shards]
samples_per_shard = 1
[latents]
codec = "dct"
text = "tiny"
width = 96
height = 64
max_tokens = 32
[latents.placement]
dtype = "f32"
"""


@dataclass(frozen=True)
class Files:
    """Of a folder: what each holds, and when it was written."""

    sha256: dict[str, str]
    mtime: dict[str, int]

    @classmethod
    def of(cls, folder: Path) -> Files:
        paths = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
        files = {name: path for name, path in paths.items() if path.is_file()}
        return cls(
            {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()},
            {n: p.stat().st_mtime_ns for n, p in files.items()},
        )

    def changed(self, before: Files) -> set[str]:
        """Files that came, went or were written, whatever they hold."""
        return {name for name, _ in self.mtime.items() ^ before.mtime.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Path]) -> Path:
    """Two clips."""
    folder = tmp_path_factory.mktemp("damage")
    for number in range(2):
        draw(folder / f"{number}.mp4", seed=number, speed=2.0)
    rows = "0.mp4,A red ball.\n1.mp4,A blue ball.\n"
    (folder / "corpus.csv").write_text(f"video,caption\n{rows}")
    (folder / "run.toml").write_text(RUN.format(folder=folder))
    return folder


@pytest.fixture
def whole(corpus: Path, say: Callable[..., str]) -> Path:
    """Its run up to the shards, which nobody damages."""
    if not (corpus / "runs").exists():
        say(dataset.main, "--config", corpus / "run.toml")
    return corpus / "runs"


@pytest.fixture
def runs(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return shutil.copytree(whole, tmp_path / "runs")


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """These files are not there for a while."""
    for path in paths:
        path.rename(f"{path}.away")
    yield
    for path in paths:
        Path(f"{path}.away").rename(path)


def one(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def flip(path: Path) -> None:
    """One byte near its beginning: in the rows of a part, in the first sample of a shard."""
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)


def test_each_damage_is_named_and_it_alone_is_mended(runs: Path, say: Callable[..., str]) -> None:
    out, facts = runs / "one", runs / "facts"
    before = Files.of(runs)
    said = say(verify.main, "--out", out)
    assert Files.of(runs).changed(before) == set()
    assert "samples: 2 files, no problems" in said
    assert "2 samples in 2 shards, no problems" in said
    assert "latents: there are none yet" in said

    part, sample = one(facts, "*/motion/*/part-*.parquet"), one(facts, "*/samples/*/*.tar")
    shard, gone = sorted(out.glob("shards/*.tar"))
    sample.write_bytes(sample.read_bytes()[:-512])
    flip(part)
    flip(shard)
    gone.unlink()
    harmed = Files.of(runs)
    said = say(verify.main, "--out", out, code=1)
    assert Files.of(runs).changed(harmed) == set()
    for path, found in (
        (part, "is damaged"),
        (sample, "bytes, wanted"),
        (shard, "another sha256"),
        (gone, "is missing, and 1 samples with it"),
    ):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{path}: ")]
        assert found in line
        assert "to mend it, " in line
    assert "up to 2 clips are measured again by motion" in said
    for looked_at, damaged in (("facts", 1), ("samples", 1), ("shards", 2)):
        assert re.search(rf"{looked_at} done: .*: {damaged} damaged", said)
    assert f"python -m jobs.repair --out {out} mends these" in said

    said = say(repair.main, "--out", out)
    assert "all is mended (problems: 4)" in said
    after = Files.of(runs)
    mended = {str(path.relative_to(runs)) for path in (sample, shard, gone)}
    assert {n: after.sha256[n] for n in mended} == {n: before.sha256[n] for n in mended}
    new_parts = {n for n in after.sha256.keys() - before.sha256.keys() if "part-" in n}
    of_run = {f"one/{n}" for n in ("status.json", "verdicts.parquet", "config.toml")}
    torn = str(part.relative_to(runs))
    assert after.changed(harmed) <= mended | new_parts | of_run | {torn}
    # a new part of motion, and the torn one beside it; what sample is to make again, and made
    made = ["motion", "motion", "sample", "sample"]
    assert sorted(name.split("/")[2] for name in new_parts) == made
    assert f"{torn}.torn" in new_parts
    assert after.mtime["one/shards/index.parquet"] == before.mtime["one/shards/index.parquet"]
    assert "no problems" in say(verify.main, "--out", out)
    assert "nothing is damaged" in say(repair.main, "--out", out)


def test_shards_alone_are_looked_at_where_the_corpus_is_not(
    corpus: Path, runs: Path, say: Callable[..., str]
) -> None:
    with away(corpus / "corpus.csv"):
        said = say(verify.main, "--out", runs / "one")
        assert "facts, samples: not looked at, for the corpus cannot be read" in said
        assert "2 samples in 2 shards, no problems" in said
        flip(one(runs / "one", "shards/*.tar"))
        assert "another sha256" in say(verify.main, "--out", runs / "one", code=1)


def test_a_sample_whose_clip_is_gone_is_named_and_its_shard_is_left(
    corpus: Path, runs: Path, say: Callable[..., str]
) -> None:
    one(runs / "facts", "*/samples/*/*.tar").unlink()
    shards = Files.of(runs / "one" / "shards")
    with away(*corpus.glob("*.mp4")):
        said = say(repair.main, "--out", runs / "one", code=1)
    assert "sample failed: missing" in said
    assert f"not all is mended; python -m jobs.verify --out {runs / 'one'} says what" in said
    assert Files.of(runs / "one" / "shards").changed(shards) == set()
    said = say(retry.main, "--errors", "missing", "--out", runs / "one")
    assert "of 1 retried 1 now measured, 0 failed again" in said
    assert "samples: 2 files, no problems" in say(verify.main, "--out", runs / "one")


def test_a_lost_index_is_made_again_from_the_shards(runs: Path, say: Callable[..., str]) -> None:
    before = Files.of(runs / "one" / "shards")
    flip(runs / "one" / "shards" / "index.parquet")
    assert "damaged" in say(verify.main, "--out", runs / "one", code=1)
    say(repair.main, "--out", runs / "one")
    after = Files.of(runs / "one" / "shards")
    assert after.sha256 == before.sha256
    assert after.changed(before) == {"index.parquet"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, with everything of a run on it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system to fill")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextmanager
def filled(disk: Path, free_bytes: int) -> Iterator[None]:
    """With so much room, in whole pages, until the block ends."""
    room = os.statvfs(disk)
    with (disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - free_bytes)
    yield
    (disk / "ballast").unlink()


def test_a_disk_that_fills_costs_nothing_but_time(
    corpus: Path, whole: Path, disk: Path, say: Callable[..., str]
) -> None:
    """In pages of 4 KiB: `config.toml` takes two while it is renewed, a lease and `status.json` one
    each, a part and a sample more.
    """
    given = ("--config", corpus / "run.toml", "--out", disk / "runs" / "one")

    def no_room(job: Callable[[], int], pages: int, missing: str) -> None:
        with filled(disk, pages << 12):
            said = say(job, *given, code=2)
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        told = re.search(
            r"/([^/]+): cannot be written \((\d+) bytes\): no space left, \d+ bytes are free", line
        )
        assert told, line
        assert missing in told[1]
        assert int(told[2]) > 0
        files = [path for path in disk.rglob("*") if path.is_file()]
        assert not [path for path in files if path.name.startswith(".tmp-")]
        for part in (path for path in files if path.name.startswith("part-")):
            pq.read_table(part)

    no_room(probe.main, 0, "manifest.json")
    say(probe.main, *given)
    no_room(score.main, 0, "config.toml")
    no_room(score.main, 2, "lease.json")
    no_room(score.main, 4, "status.json")
    no_room(score.main, 6, "part-")
    for job in (score, duplicates, entities, segment):
        say(job.main, *given)
    no_room(samples.main, 4, ".tar")
    say(samples.main, *given)
    no_room(shards.main, 2, ".tar")
    say(shards.main, *given)
    there, unbroken = Files.of(disk / "runs/one/shards"), Files.of(whole / "one/shards")
    assert there.sha256 == unbroken.sha256
    assert "no problems" in say(verify.main, *given)


def test_latents_are_mended_and_want_room_too(
    corpus: Path, whole: Path, disk: Path, say: Callable[..., str]
) -> None:
    runs = shutil.copytree(whole, disk / "runs")
    given = ("--config", corpus / "run.toml", "--out", runs / "one")
    with filled(disk, 64 << 10):
        assert "No space left on device" in say(latents.main, *given, code=2)
    say(latents.main, *given)
    before = Files.of(runs)
    assert "encoded: 2 files, no problems" in say(verify.main, *given)
    encoded, shard = one(runs, "facts/*/encoded/*/*.tar"), one(runs, "one/latents/*.tar")
    flip(encoded)
    shard.unlink()
    said = say(verify.main, *given, code=1)
    assert f"{encoded}: has another sha256 than recorded; to mend it, its clip is built" in said
    assert f"{shard}: is missing, and 1 samples with it" in said
    assert "all is mended (problems: 2)" in say(repair.main, *given)
    after = Files.of(runs)
    names = [n for n in before.sha256 if "/encoded/" in n or n.startswith("one/latents/")]
    assert {n: after.sha256[n] for n in names} == {n: before.sha256[n] for n in names}
    assert "no problems" in say(verify.main, *given)
