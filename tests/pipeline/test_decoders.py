"""Several clips are decoded side by side, and what happens to one is nothing to the others."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.clip import Failed
from pipeline.decoder import Decoder
from pipeline.decoders import Decoded, Decoders
from pipeline.frames import Every, FrameRequest

REQUESTS = [FrameRequest(Every())]
LEVELS = [40, 80, 120, 160]


@pytest.fixture
def clips(render: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Clips of three frames, told apart by their grey level."""
    pictures = [[np.full((48, 64, 3), level, np.uint8)] * 3 for level in LEVELS]
    return [str(render(tmp_path / f"{n}.mp4", some)) for n, some in enumerate(pictures)]


@pytest.fixture
def decoders(request: pytest.FixtureRequest) -> Iterator[Decoders]:
    """By count and bytes ahead; eight clips ahead, 2 s each."""
    count, ahead_bytes = request.param
    some = Decoders(count, 8, ahead_bytes, 2.0, 1 << 30)
    some.start()
    yield some
    some.close()
    while children():
        time.sleep(0.05)


def several(count: int, ahead_bytes: int = 1 << 30) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("decoders", [(count, ahead_bytes)], indirect=True)


def level(decoded: Decoded) -> float:
    assert not isinstance(decoded, Failed), decoded
    return round(float(decoded[0].images.mean()), -1)


def children() -> list[psutil.Process]:
    """Those that decode."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            found += [child] * ("pipeline.decoder_main" in child.cmdline())
    return found


@several(3)
def test_frames_come_in_the_order_they_were_asked_for(decoders: Decoders, clips: list[str]) -> None:
    for path in clips:
        decoders.order(path, REQUESTS)
    assert [level(decoders.next()) for _ in clips] == LEVELS


@several(2)
def test_a_child_that_hangs_costs_its_clip_a_second_try_and_the_others_nothing(
    decoders: Decoders, clips: list[str]
) -> None:
    while len(children()) < 2:
        time.sleep(0.05)
    children()[0].suspend()
    started = time.monotonic()
    for path in clips:
        decoders.order(path, REQUESTS)
    assert [level(decoders.next()) for _ in clips] == LEVELS
    assert 2 < time.monotonic() - started < 4


@several(1)
def test_a_clip_that_kills_two_fresh_children_has_failed(
    decoders: Decoders, clips: list[str]
) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.02):
            for child in children():
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    decoders.order(clips[0], REQUESTS)
    assert decoders.next() == Failed("crash", "decoding killed the decoder")
    over.set()
    killer.join()
    decoders.order(clips[1], REQUESTS)
    assert level(decoders.next()) == LEVELS[1]


def test_a_child_that_decodes_knows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    decoder = Decoder(2.0, 1 << 30)
    decoder.decode("/no/such/clip.mp4", REQUESTS)
    (child,) = children()
    told = child.environ()
    decoder.close()
    assert "PYTHONPATH" in told
    assert "OPENAI_API_KEY" not in told


def test_frames_that_find_no_memory_here_fail_their_clip_alone(render, tmp_path: Path) -> None:
    large = render(tmp_path / "large.mp4", [np.zeros((1080, 1920, 3), np.uint8)] * 40)
    decoder = Decoder(30.0, 4 << 30)
    decoder.start()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = psutil.Process().memory_info().vms + (128 << 20)  # for less than 40 pictures
    try:
        resource.setrlimit(resource.RLIMIT_AS, (room, hard))
        failed = decoder.decode(str(large), REQUESTS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        decoder.close()  # the second child has inherited the limit, and fails as it may
        decoded = decoder.decode(str(large), REQUESTS)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        decoder.close()
    assert isinstance(failed, Failed)
    assert not isinstance(decoded, Failed)


@several(1, ahead_bytes=1)
def test_no_clip_is_begun_while_memory_is_full(decoders: Decoders, clips: list[str]) -> None:
    later = Path(clips[1]).with_name("later.mp4")
    decoders.order(clips[0], REQUESTS)
    decoders.order(str(later), REQUESTS)
    time.sleep(1.5)  # time enough for both
    Path(clips[1]).rename(later)  # had it been begun before, it would be missing
    assert [level(decoders.next()) for _ in range(2)] == LEVELS[:2]
