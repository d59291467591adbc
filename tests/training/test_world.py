"""Several workers do what one does: the same samples and noise, losses within rounding, one end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from small_training import SOURCES
from small_world import Order, Workers, workers

from pipeline.errors import InputError
from training.course import LoopSettings
from training.diverged import read
from training.held_out import split
from training.metrics import ANEW, read_metrics
from training.order import place

LOOP = LoopSettings(steps=12, global_batch=8, batch=2, checkpoint_every=5, text_drop=0.3)
SHARE = 4  # samples of each of two workers in a step


@pytest.fixture(scope="module")
def meet() -> Iterator[Workers]:
    with workers(2) as meet:
        yield meet


@pytest.fixture(scope="module")
def alone(meet: Workers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A whole run of one worker: its folder, and what its network was shown."""
    folder = tmp_path_factory.mktemp("alone")
    (answer,) = meet(1, Order(folder, LOOP))
    return folder, answer.seen


@pytest.fixture(scope="module")
def pair(meet: Workers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The same of two workers."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, _in_order(meet(2, Order(folder, LOOP)))


def _in_order(answers: list) -> list[str]:
    """What the workers of a world were shown, step by step, by rank."""
    steps = range(0, len(answers[0].seen), SHARE)
    return [one for at in steps for answer in answers for one in answer.seen[at : at + SHARE]]


def _told(folder: Path) -> list[dict]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ANEW} for line in lines]


def _weights(folder: Path) -> dict[str, bytes]:
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = {}
    for file in last.glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            names = tensors.keys()
            found |= {f"{file.name}/{k}": tensors.get_tensor(k).tobytes() for k in names}
    return found


def _agree(one: Path, other: Path) -> None:
    """Losses, norms and held-out losses are the same but for rounding."""
    for here, there in zip(_told(one), _told(other), strict=True):
        assert here == pytest.approx(there, rel=1e-4)


def test_two_workers_train_on_what_one_does(alone: tuple, pair: tuple):
    assert len(alone[1]) == LOOP.steps * LOOP.global_batch
    assert pair[1] == alone[1]
    _agree(pair[0], alone[0])
    assert _told(pair[0])[0] == _told(alone[0])[0]  # held-out losses: no sum was cut otherwise


def test_one_worker_then_two_then_one(alone: tuple, meet: Workers, tmp_path: Path):
    first = meet(1, Order(tmp_path, LOOP, stop_at=4))
    then = meet(2, Order(tmp_path, LOOP, stop_at=6))
    last = meet(1, Order(tmp_path, LOOP))
    assert [answers[0].step for answers in (first, then, last)] == [3, 8, 12]
    assert [*first[0].seen, *_in_order(then), *last[0].seen] == alone[1]
    _agree(tmp_path, alone[0])


def test_two_workers_stopped_and_resumed_equal_unbroken_two(
    pair: tuple, meet: Workers, tmp_path: Path
):
    answers = meet(2, Order(tmp_path, LOOP, stop_at=8))
    assert [(one.step, one.stopped_by) for one in answers] == [(7, 15)] * 2  # one alone had heard
    meet(2, Order(tmp_path, LOOP))
    assert _weights(tmp_path) == _weights(pair[0])
    assert _told(tmp_path) == _told(pair[0])


def test_what_one_worker_cannot_read_stops_both_with_its_words(
    pair: tuple, meet: Workers, tmp_path: Path
):
    order = Order(tmp_path, replace(LOOP, steps=40), sick=7)
    answers = meet(2, order)
    assert {one.error for one in answers} == {"sample 7: damaged latents"}
    assert len(answers[0].seen) == len(answers[1].seen) > 0


def test_a_folder_that_not_all_workers_see_is_refused(meet: Workers, tmp_path: Path):
    meet(1, Order(tmp_path, LOOP, stop_at=3))
    answers = meet(2, Order(tmp_path, LOOP, apart=True))
    for one in answers:
        assert "the workers do not see the same checkpoints" in one.error


@pytest.mark.parametrize(
    ("global_batch", "batch", "workers", "near"), [(32, 1, 3, 33), (4, 8, 1, 8), (10, 2, 2, 8)]
)
def test_a_global_batch_that_does_not_come_out_even_is_refused(
    global_batch: int, batch: int, workers: int, near: int
):
    loop = LoopSettings(global_batch=global_batch, batch=batch)
    with pytest.raises(
        InputError, match=rf"found {global_batch} for {workers} .* set it to {near}"
    ):
        loop.share(workers)
    assert replace(loop, global_batch=near).share(workers) * workers == near


def test_a_step_that_diverges_in_one_worker_is_kept_by_all(meet: Workers, tmp_path: Path):
    numbers, _ = split(LOOP.seed, SOURCES, 0.3)
    wild = numbers[place(LOOP.seed, SHARE, len(numbers)).number]  # the second one's first sample
    answers = meet(2, Order(tmp_path, LOOP, wild=wild))
    assert answers[0].error == answers[1].error
    assert "step 1: found the loss nan and a gradient of norm nan on" in answers[0].error
    workers = read(tmp_path / "diverged" / "step-00000001")
    assert [(given.rank, given.position) for given in workers] == [(0, 0), (1, SHARE)]
    finite = [
        [bool(example.latents.isfinite().all()) for batch in given.batches for example in batch]
        for given in workers
    ]
    assert finite == [[True] * SHARE, [False] + [True] * (SHARE - 1)]
    keys = [one.key for given in workers for batch in given.batches for one in batch]
    assert all(key in answers[0].error for key in keys)
