"""A report shows of every clip what there is to see."""

import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import storage
from pipeline.manifest import read_manifest
from pipeline.mask import rle_encode
from pipeline.report.clips import Number, choose, funnel_rows, sheet_rows
from pipeline.sample_tar import pack
from pipeline.verdicts import SCHEMA
from pipeline.video import VideoSettings, encode

WHITE = np.full((64, 96, 3), 255, np.uint8)
NUMBERS = [Number("length", "probe", "seconds", ".1f"), Number("shows", "entities", "phrase")]


def verdict_row(clip_id, video, verdict, stage=None, measure=None, code=None):
    values = {"verdict": verdict, "stage": stage, "measure": measure, "code": code}
    return {"clip_id": clip_id, "video": video, "value": "1", "threshold": "<= 0", **values}


@pytest.fixture
def manifest(tmp_path):
    """Three files: one white video that is kept, one that is rejected, one that is no video."""
    video = encode(np.stack([WHITE] * 12), VideoSettings(width=96, height=64))
    for name in ("kept.mp4", "still.mp4"):
        (tmp_path / name).write_bytes(video)
    (tmp_path / "broken.mp4").write_text("no video")
    with (tmp_path / "clips.csv").open("w") as file:
        names = ["kept.mp4", "still.mp4", "broken.mp4", "kept.mp4"]
        csv.writer(file).writerows([["video", "caption"], *([name, "A cup."] for name in names)])
    return read_manifest(str(tmp_path / "clips.csv"))


@pytest.fixture
def facts(manifest, tmp_path):
    kept, still, broken, _ = manifest.rows["clip_id"].to_pylist()
    mask = np.zeros((64, 96), bool)
    mask[16:48, 32:64] = True
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), "white").save(buffer, "PNG")
    members = dict.fromkeys(("json", "mask.png", "mp4"), b"-")
    tar = pack(kept, {**members, "reference.png": buffer.getvalue()})
    storage.write(str(tmp_path / "samples" / "ab" / "x.tar"), tar)
    good = {"code": None, "message": None}
    probed = [{"clip_id": c, **good, "num_frames": 12, "seconds": 1.5} for c in (kept, still)]
    bad = {"clip_id": broken, "code": "unreadable", "message": "no moov atom"}
    segmented = {"mask_rle": rle_encode(mask), "mask_width": 96, "mask_height": 64}
    return {
        "probe": pa.Table.from_pylist([*probed, bad]),
        "segment": pa.Table.from_pylist([{"clip_id": kept, **good, **segmented}]),
        "sample": pa.Table.from_pylist([{"clip_id": kept, **good, "name": "ab/x.tar"}]),
    }


@pytest.fixture
def verdicts(manifest):
    kept, still, broken, again = manifest.rows["clip_id"].to_pylist()
    rows = [
        verdict_row(kept, "kept.mp4", "kept"),
        verdict_row(still, "still.mp4", "rejected", "motion", "top5"),
        verdict_row(broken, "broken.mp4", "failed", "probe", code="unreadable"),
        verdict_row(again, "kept.mp4", "rejected", "manifest", code="duplicate"),
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture
def shown(manifest, verdicts, facts, tmp_path):
    samples_url = str(tmp_path / "samples")
    return list(sheet_rows([0, 1, 2, 3], manifest, verdicts, facts, samples_url, NUMBERS))


def test_a_kept_clip_shows_reference_mask_and_five_frames(shown):
    assert shown[0].labels[:2] == ["reference", "mask"]
    assert len(shown[0].labels) == 7
    assert shown[0].pictures[0].shape == (60, 90, 3)
    assert shown[0].pictures[1][32, 48].min() > 200, "inside the mask"
    assert shown[0].pictures[1][4, 4].max() < 150, "outside of it"
    assert dict(shown[0].numbers) == {"length": "1.5"}


def test_a_rejected_clip_shows_frames_and_its_reason(shown):
    assert len(shown[1].pictures) == 5
    assert shown[1].verdict == "rejected: motion.top5 1, wanted <= 0"


def test_a_failed_clip_says_why(shown):
    assert len(shown[2].pictures) == 0
    assert shown[2].verdict == "failed: probe unreadable (no moov atom)"


def test_a_duplicate_does_not_show_the_first_one_again(shown):
    assert len(shown[3].pictures) == 0
    assert shown[3].verdict == "rejected: manifest duplicate"


def test_a_video_that_broke_after_it_was_measured_costs_its_pictures_only(
    manifest, verdicts, facts, tmp_path
):
    (tmp_path / "still.mp4").write_bytes(b"\0" * 100)
    (tmp_path / "samples" / "ab" / "x.tar").unlink()
    rows = list(sheet_rows([1, 0], manifest, verdicts, facts, str(tmp_path / "samples"), []))
    assert [row.labels[:1] for row in rows] == [[], ["mask"]]


def test_the_funnel_ends_with_what_is_kept(verdicts):
    rows = funnel_rows(verdicts, [])
    assert [(row.step, row.left, row.rejected) for row in rows] == [("manifest", 3, 1)]


def test_kept_clips_come_first_and_reasons_are_shown_a_few_times_each():
    many = [verdict_row("a", "a", "rejected", "motion", "top5")] * 5
    many += [verdict_row("b", "b", "failed", "probe", code="empty")] * 5
    many += [verdict_row("c", "c", "kept")] * 5
    assert choose(pa.Table.from_pylist(many, SCHEMA), 3, 2) == [10, 11, 12, 0, 1, 5, 6]
