"""Samples: what is in one, and that its bytes follow from its inputs alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from pipeline.clip import Clip, Failed, Measurement, clip_id
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.mask import box_of, rle_encode
from pipeline.sample_tar import unpack
from pipeline.video import VideoSettings, encode
from stages.sample import Sample, SampleSettings, crop_window

ROOT = Path(__file__).parents[2]
NUMBERS = tuple(range(0, 76, 3))


def moving(width: int, height: int, numbers: tuple[int, ...] = NUMBERS) -> Frames:
    """A red disc that drifts over a smooth gradient."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([60 + 90 * x / width, 90 + 90 * y / height, 120 + 0 * x], -1)
    images = np.empty((len(numbers), height, width, 3), dtype=np.uint8)
    for image, number in zip(images, numbers, strict=True):
        image[...] = np.where(disc(width, height, number)[..., None], (200, 40, 30), ground)
    return Frames(images, numbers, 24.0, 100, width, height)


def disc(width: int, height: int, number: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - 0.6 * width - number) ** 2 + (y - 0.5 * height) ** 2 < (0.2 * height) ** 2


def facts(mask: np.ndarray) -> dict[str, dict[str, Any]]:
    height, width = mask.shape
    return {
        "probe": {"width": width, "fps": 24.0, "mtime": 1234.5, "codec": None},
        "appearance": {"consistency": np.float64(0.1) + np.float64(0.2)},
        "motion": {"top5": 0.04},
        "overlay": {"share": 0.0},
        "entities": {"main_entity": "disc", "phrase": "red disc", "category": "object"},
        "segment": {"mask_rle": rle_encode(mask), "mask_width": width, "mask_height": height},
        "pair": {"found_again": 0.9, "likeness": 0.7, "word_similarity": None},
    }


def clip(caption: str = "A red disc drifts.", video: str = "a disc.mp4") -> Clip:
    return Clip(clip_id(video), video, "/nowhere/a disc.mp4", caption, "source")


def built(
    out: Path,
    frames: Frames,
    known: dict[str, dict[str, Any]],
    of: Clip | None = None,
    settings: SampleSettings | None = None,
) -> dict[str, Any]:
    stage = Sample(settings or SampleSettings(), str(out))
    (outcome,) = stage.measure([of or clip()], [frames], [known])
    assert isinstance(outcome, Measurement), outcome
    assert set(outcome.values) == set(stage.columns.names)
    return dict(outcome.values)


def opened(out: Path, values: dict[str, Any], of: Clip | None = None) -> dict[str, bytes]:
    return unpack((of or clip()).clip_id, (out / values["name"]).read_bytes())


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_video_is_25_frames_of_480x720_at_8_fps_tagged_bt709_and_true(tmp_path: Path):
    frames = moving(720, 480)
    members = opened(tmp_path, built(tmp_path, frames, facts(disc(720, 480))))
    with av.open(io.BytesIO(members["mp4"]), "r") as container:
        stream = container.streams.video[0]
        tags = stream.codec_context
        assert (stream.width, stream.height, stream.average_rate) == (720, 480, 8)
        assert (stream.codec.name, tags.pix_fmt) == ("h264", "yuv420p")
        assert (tags.colorspace, tags.color_primaries, tags.color_trc) == (1, 1, 1)
        seen = [
            frame.to_ndarray(format="rgb24", src_colorspace=Colorspace.ITU709)
            for frame in container.decode(stream)
        ]
    assert len(seen) == 25
    for mine, theirs in zip(seen, frames.images[1:], strict=True):
        error = np.mean((mine.astype(float) - theirs) ** 2)
        assert 10 * np.log10(255**2 / error) > 38


def test_reference_and_mask_are_of_frame_0_and_the_mask_is_cropped_as_the_video(tmp_path: Path):
    frames, mask = moving(1280, 720), disc(1280, 720)
    members = opened(tmp_path, built(tmp_path, frames, facts(mask)))
    reference, small = picture(members["reference.png"]), picture(members["mask.png"])
    assert reference.shape == (480, 720, 3)
    assert np.abs(reference[240, 360].astype(int) - (200, 40, 30)).max() <= 2
    assert (reference[:, :100] == 255).all()
    assert (small.shape, set(np.unique(small))) == ((480, 720), {0, 255})
    window = json.loads(members["json"])["provenance"]["crop"]
    subject = box_of(mask)
    assert subject is not None
    scale = 480 / 720
    left, top = (subject[0] - window["x0"]) * scale, subject[1] * scale
    assert box_of(small > 0) == pytest.approx((left, top, left + 192, top + 192), abs=2)


def test_the_json_tells_caption_entity_facts_and_where_it_came_from(tmp_path: Path):
    note = json.loads(
        opened(tmp_path, built(tmp_path, moving(720, 480), facts(disc(720, 480))))["json"]
    )
    assert (note["key"], note["video"]) == (clip().clip_id, "a disc.mp4")
    assert (note["caption"], note["source_id"]) == ("A red disc drifts.", "source")
    assert note["entity"] == {"main_entity": "disc", "phrase": "red disc", "category": "object"}
    assert (note["width"], note["height"], note["fps"], note["num_frames"]) == (720, 480, 8, 25)
    assert note["facts"]["appearance"]["consistency"] == 0.1 + 0.2
    assert note["facts"]["pair"] == {"found_again": 0.9, "likeness": 0.7}
    assert note["provenance"]["frames"] == list(NUMBERS[1:])
    assert note["provenance"]["settings"]["video"]["crf"] == VideoSettings().crf
    assert "mask_rle" not in note["facts"]["segment"]
    assert "/nowhere" not in json.dumps(note)


def test_two_builds_are_the_same_to_the_byte_and_the_address_names_the_file(tmp_path: Path):
    known, frames = facts(disc(300, 200)), moving(300, 200)
    first, second = (built(tmp_path / where, frames, known) for where in "ab")
    assert first == second
    packed = [(tmp_path / where / first["name"]).read_bytes() for where in "ab"]
    assert packed[0] == packed[1]
    assert first["name"] == f"{first['address'][:2]}/{first['address']}.tar"
    assert first["bytes"] == len(packed[0])


def test_a_fact_from_its_stage_and_the_same_out_of_the_ledger_make_one_sample(tmp_path: Path):
    known, frames = facts(disc(300, 200)), moving(300, 200)
    fresh = {**known, "motion": {"top5": np.float64(2.0), "words": ("a", "b")}}
    kept = {**known, "motion": {"top5": 2, "words": ["a", "b"], "nothing": None}}
    assert built(tmp_path, frames, fresh) == built(tmp_path, frames, kept)


def test_the_address_follows_what_the_sample_is_made_of(tmp_path: Path):
    known, frames = facts(disc(300, 200)), moving(300, 200)
    other_pixels = Frames(frames.images ^ 1, NUMBERS, 24.0, 100, 300, 200)
    other_fact = {**known, "motion": {"top5": 0.05}}
    other_crf = SampleSettings(video=VideoSettings(crf=20))
    addresses = [
        built(tmp_path, frames, known),
        built(tmp_path, other_pixels, known),
        built(tmp_path, frames, other_fact),
        built(tmp_path, frames, known, clip("Another caption.")),
        built(tmp_path, frames, known, clip(video="b.mp4")),
        built(tmp_path, frames, known, settings=other_crf),
    ]
    assert len({values["address"] for values in addresses}) == len(addresses)
    touched = {**known, "probe": {**known["probe"], "mtime": 9.0}}
    assert built(tmp_path, frames, touched) == addresses[0]


def test_what_is_there_is_never_overwritten(tmp_path: Path):
    known, frames = facts(disc(300, 200)), moving(300, 200)
    path = tmp_path / built(tmp_path, frames, known)["name"]
    path.write_bytes(b"of another writer")
    assert built(tmp_path, frames, known)["bytes"] == len(b"of another writer")
    assert path.read_bytes() == b"of another writer"


@pytest.mark.parametrize(
    "caption",
    [
        "Ein „grüner“ Frosch",
        "一只绿色的青蛙",
        "ضفدع أخضر",
        "🐸 \U0001f1e9",
        "tab\t\n\x00",
        "a\udcffb",
    ],
)
def test_captions_and_names_of_any_script_come_back(tmp_path: Path, caption: str):
    of = clip(caption, video=f"-{caption}. .mp4")
    values = built(tmp_path, moving(90, 60), facts(disc(90, 60)), of)
    note = json.loads(opened(tmp_path, values, of)["json"])
    assert (note["caption"], note["video"]) == (of.caption, of.video)
    assert "." not in note["key"]


def test_a_clip_that_cannot_be_built_has_failed_with_a_code(tmp_path: Path):
    mask = disc(300, 200)
    short = moving(300, 200, NUMBERS[:-1])
    whole = moving(300, 200)
    cases = [
        (short, facts(mask)),
        (whole, facts(disc(600, 400))),
        (whole, facts(np.zeros_like(mask))),
        (whole, {**facts(mask), "segment": {"mask_rle": None}}),
    ]
    outcomes = Sample(SampleSettings(), str(tmp_path)).measure(
        [clip()] * 4, [frames for frames, _ in cases], [known for _, known in cases]
    )
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, Failed)]
    assert codes == ["partial", "changed", "no_mask", "no_mask"]
    assert list(tmp_path.iterdir()) == []


def test_the_crop_has_the_aspect_lies_inside_and_holds_the_subject():
    for size in ((1920, 1080), (1080, 1920), (720, 480), (640, 640), (3, 1000)):
        for left in range(0, size[0], max(1, size[0] // 7)):
            subject = (left, size[1] // 3, min(left + size[0] // 10, size[0]), size[1] // 2)
            x0, y0, x1, y1 = crop_window(size, (720, 480), subject)
            assert 0 <= x0 < x1 <= size[0]
            assert 0 <= y0 < y1 <= size[1]
            assert abs((x1 - x0) - 1.5 * (y1 - y0)) <= 1.5
            assert x0 <= subject[0]
            assert subject[2] <= x1
    assert crop_window((1920, 1080), (720, 480), (900, 0, 1020, 1080)) == (150, 0, 1770, 1080)


def test_the_reference_lies_so_many_frames_before_the_window_and_is_still_of_frame_0(
    tmp_path: Path,
):
    settings = SampleSettings(num_frames=5, interval=2, reference_frame=30)
    numbers = (0, 30, 32, 34, 36, 38)
    frames = moving(300, 200, numbers)
    values = built(tmp_path, frames, facts(disc(300, 200)), settings=settings)
    members = opened(tmp_path, values)
    note = json.loads(members["json"])
    assert note["provenance"]["frames"] == list(numbers[1:])
    assert note["provenance"]["reference_frame"] == 0
    with av.open(io.BytesIO(members["mp4"]), "r") as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    row = first[240].astype(int)
    middle = np.flatnonzero(row[:, 0] - row[:, 2] > 90).mean()
    assert middle == pytest.approx((0.6 * 300 + 30) * 2.4, abs=4)  # the disc 30 frames on


def test_a_clip_that_is_too_short_for_a_later_window_is_told_how_long_it_has_to_be(tmp_path: Path):
    stage = Sample(SampleSettings(reference_frame=30), str(tmp_path))
    short = moving(300, 200, (0, *range(30, 100, 3)))
    (outcome,) = stage.measure([clip()], [short], [facts(disc(300, 200))])
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == (
        "partial",
        "found 25 of 26 frames: a sample needs a clip of 103",
    )


def test_a_video_without_frames_to_pick_is_refused():
    with pytest.raises(InputError, match="interval 0"):
        SampleSettings(interval=0)
    with pytest.raises(InputError, match="reference_frame 0"):
        SampleSettings(reference_frame=0)


ENCODE_NOISE = """
import hashlib, numpy as np
from pipeline.video import VideoSettings, encode
noise = np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)
large = noise.repeat(8, 0).repeat(8, 1)
frames = np.stack([large[3 * i : 3 * i + 480, 5 * i : 5 * i + 720] for i in range(25)])
print(hashlib.sha256(encode(frames, VideoSettings())).hexdigest())
"""


def test_what_lay_in_memory_before_does_not_change_the_bytes():
    seen = {
        subprocess.run(
            [sys.executable, "-c", ENCODE_NOISE],
            env={**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for fill in ("0", "85", "255")
    }
    assert len(seen) == 1


def test_small_pictures_are_enlarged_to_the_same_size():
    content = encode(moving(90, 60).images, VideoSettings())
    with av.open(io.BytesIO(content), "r") as container:
        assert {(f.width, f.height) for f in container.decode(video=0)} == {(720, 480)}
