"""A training whose folder is a url goes on from there on another machine, as if never stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faulty_proxy import BUSY, CUT, ERROR, RESET_AFTER, RESET_BEFORE, Faults
from small_training import quiet, small_trainer

from pipeline import storage
from pipeline.errors import InputError
from training.checkpoint import find
from training.course import LoopSettings
from training.metrics import ANEW, read_metrics
from training.stored import Stored, at_hand, copied
from training.trainer import Told

if TYPE_CHECKING:
    from s3_server import S3Server

    OnS3 = Callable[..., S3Server]

LOOP = LoopSettings(steps=6, global_batch=4, batch=2, checkpoint_every=2, keep=2)
SHARES = {fault: 0.05 for fault in (ERROR, BUSY, RESET_BEFORE, RESET_AFTER, CUT)}


def train(url: str, until: int, stop_at: int = 100) -> list[dict]:
    """Trains to a step; what the metrics say then. stop_at: SIGTERM after so many steps."""
    asked = 0

    def stop() -> int:
        nonlocal asked
        asked += 1
        return 15 if asked > stop_at else 0

    loop = replace(LOOP, steps=until)
    with at_hand(url, loop.keep, loop.keeps) as (folder, saved):
        small_trainer(folder, loop, told=Told(saved=saved)).run(stop, quiet)
        lines = read_metrics(folder / "metrics.jsonl")
    return [{name: line[name] for name in line if name not in ANEW} for line in lines]


def weights(url: str) -> bytes:
    return Path(find(url), "w.safetensors").read_bytes()


def test_it_goes_on_from_the_store_as_if_never_stopped(on_s3: OnS3, tmp_path: Path) -> None:
    store = on_s3(longest_pause_s=0.2)
    whole = train(str(tmp_path / "train"), 6)
    faults = store.suffer(Faults(20261129, SHARES))
    url = f"{store.url}/runs/train"
    train(url, 6, stop_at=3)
    assert train(url, 6) == whole
    assert faults.happened.total() > 0
    store.spare()
    assert weights(url) == weights(str(tmp_path / "train"))
    assert Stored(url).steps() == [4, 6]
    kept = {name.split("/")[0] for name in storage.files(f"{url}/checkpoints")}
    assert kept == {"step-00000004", "step-00000006"}


def test_half_a_checkpoint_is_none(on_s3: OnS3) -> None:
    url = f"{on_s3().url}/runs/half"
    train(url, 4)
    whole = weights(url)
    for name in ("w.safetensors", "optimizer.safetensors"):
        storage.write(f"{url}/checkpoints/step-00000006/{name}", b"half")
    assert Stored(url).steps() == [2, 4]
    with at_hand(url, 1, lambda step: False) as (folder, _):
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000004"]
        newest = folder / "checkpoints" / "step-00000004" / "w.safetensors"
        assert newest.read_bytes() == whole
    assert len(train(url, 6)) == 7


def test_what_another_worker_wrote_is_kept_beside_what_the_leading_one_did(on_s3: OnS3) -> None:
    url = f"{on_s3().url}/runs/two"
    train(url, 2)
    with at_hand(url, 1, lambda step: False) as (folder, _):
        train(url, 4)
        metrics = storage.read(f"{url}/metrics.jsonl")
        (folder / "diverged").mkdir()
        (folder / "diverged" / "worker-1").write_text("what it was given")
    assert storage.read(f"{url}/metrics.jsonl") == metrics
    with copied(f"{url}/diverged") as folder:
        assert (folder / "worker-1").read_text() == "what it was given"
    with pytest.raises(InputError, match="/else: found nothing there"), copied(f"{url}/else"):
        pass


def test_a_large_file_goes_there_and_back(on_s3: OnS3, tmp_path: Path) -> None:
    store = on_s3()
    checkpoint = tmp_path / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    large = bytes(range(256)) * ((65 << 20) // 256)
    (checkpoint / "base.safetensors").write_bytes(large)
    stored = Stored(f"{store.url}/runs/large")
    stored.put(checkpoint)
    fetched = stored.fetch(tmp_path / "there")
    assert fetched is not None
    assert (fetched / "base.safetensors").read_bytes() == large
