"""The subject of the first frame is what the caption names, or nothing is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pytest

from jobs.order import measures
from jobs.settings import Run
from pipeline.clip import Clip, Failed, Measurement
from pipeline.filters import first_rejection
from pipeline.frames import Frames
from pipeline.mask import rle_decode
from stages.grounded import GroundedSegment, described_of
from stages.networks.grounding import Detection, GroundingSettings
from stages.networks.placement import Placement
from stages.networks.sam import Cutout, SamSettings
from stages.segment import SegmentSettings

PACKAGES = ("original", "transformers")
WIDTH, HEIGHT = 640, 360
CLIP = Clip("a" * 16, "a.mp4", "a.mp4", "A cat.", "a")


@pytest.fixture(scope="module", params=PACKAGES)
def stage(
    request: pytest.FixtureRequest,
    small_detectors: dict[str, GroundingSettings],
    small_cutters: dict[str, SamSettings],
) -> GroundedSegment:
    """Small networks of the real classes, with random weights, set up as a host does."""
    stage = GroundedSegment(small_detectors[request.param], small_cutters[request.param])
    stage.setup()
    return stage


def shown(picture: np.ndarray) -> Frames:
    height, width = picture.shape[:2]
    return Frames(picture[None], (0,), 25.0, 100, width, height)


def naming(entity: str | None) -> Mapping[str, Mapping[str, Any]]:
    return {"entities": {"main_entity": entity}}


def measured(
    stage: GroundedSegment, *clips: tuple[np.ndarray, str | None]
) -> list[Mapping[str, Any]]:
    """As the ledger will have it."""
    outcomes = stage.measure(
        [CLIP] * len(clips),
        [shown(picture) for picture, _ in clips],
        [naming(entity) for _, entity in clips],
    )
    values = [outcome.values for outcome in outcomes if isinstance(outcome, Measurement)]
    assert len(values) == len(clips)
    assert all(set(one) == set(stage.columns.names) for one in values)
    return pa.RecordBatch.from_pylist(
        [dict(one) for one in values], schema=stage.columns
    ).to_pylist()


def test_what_is_named_is_measured_at_native_size(
    stage: GroundedSegment, texture: Callable[..., np.ndarray]
) -> None:
    (values,) = measured(stage, (texture(90, 120), "red ball"))
    assert values["entity_checked"]
    assert (values["mask_width"], values["mask_height"]) == (120, 90)
    assert values["score"] >= 0.35
    mask = rle_decode(values["mask_rle"], 120, 90)
    assert values["area"] == pytest.approx(mask.mean())


def test_clips_of_different_sizes_are_measured_as_they_are_one_by_one(
    stage: GroundedSegment, texture: Callable[..., np.ndarray]
) -> None:
    clips = [
        (texture(90, 120, 1), "cat"),
        (texture(120, 90, 2), "a toy frog"),
        (texture(90, 120, 3), None),
        (texture(90, 120, 4), "ball"),
    ]
    for clip, together in zip(clips, measured(stage, *clips), strict=True):
        (alone,) = measured(stage, clip)
        for column in ("score", "second_score", "predicted_iou", "area"):
            assert together[column] == pytest.approx(alone[column], abs=2e-3)
        assert (together["instances"], together["phrase"]) == (alone["instances"], alone["phrase"])


def test_without_a_name_or_a_box_nothing_is_found_and_that_is_rejected(
    small_detectors: dict[str, GroundingSettings],
    small_cutters: dict[str, SamSettings],
    texture: Callable[..., np.ndarray],
) -> None:
    strict = replace(small_detectors["transformers"], box_threshold=1.0)
    stage = GroundedSegment(strict, small_cutters["transformers"])
    stage.setup()
    for values in measured(stage, *[(texture(90, 120), name) for name in (None, "", "cat")]):
        assert values["mask_rle"] is None
        assert rejected_by(values) == "score"


def test_a_clip_without_a_first_frame_has_failed_and_the_others_have_not(
    stage: GroundedSegment, texture: Callable[..., np.ndarray]
) -> None:
    frames = [replace(shown(texture(90, 120)), images=np.zeros((0, 90, 120, 3), np.uint8))]
    frames.append(shown(texture(90, 120)))
    failed, fine = stage.measure([CLIP] * 2, frames, [naming("cat")] * 2)
    assert isinstance(failed, Failed)
    assert failed.code == "partial"
    assert isinstance(fine, Measurement)


BOX = Detection((0.2, 0.1, 0.8, 0.9), 0.7, "cat")


def disc(radius: int, x: int = 320, y: int = 180) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    return cv2.circle(canvas, (x, y), radius, 1, -1).astype(bool)


def described(mask: np.ndarray, *others: Detection) -> Mapping[str, Any]:
    return described_of([BOX, *others], Cutout(mask, 0.95, 0.98))


def rejected_by(values: Mapping[str, Any]) -> str | None:
    rejection = first_rejection(GroundedSegment.filters, values)
    assert rejection is None or not rejection.failed
    return rejection.measure if rejection else None


def test_a_whole_thing_in_the_middle_passes_every_gate() -> None:
    values = described(disc(100))
    assert rejected_by(values) is None
    assert values["crop_short_side_px"] == 201
    assert (values["x0"], values["y1"]) == pytest.approx((220 / WIDTH, 281 / HEIGHT))


def test_small_holes_are_filled_and_crumbs_dropped_but_a_ring_keeps_its_hole() -> None:
    spotted = (disc(100) & ~disc(8)) | disc(5, 60, 60)
    values = described(spotted)
    assert (rle_decode(values["mask_rle"], WIDTH, HEIGHT) == disc(100)).all()
    assert 0.99 < values["largest_component"] < 1
    ring = disc(100) & ~disc(60)
    assert (rle_decode(described(ring)["mask_rle"], WIDTH, HEIGHT) == ring).all()


def test_a_thing_in_pieces_stays_in_pieces_and_is_rejected() -> None:
    pieces = disc(90, 200) | disc(80, 500)
    values = described(pieces)
    assert (rle_decode(values["mask_rle"], WIDTH, HEIGHT) == pieces).all()
    assert rejected_by(values) == "largest_component"


@pytest.mark.parametrize(
    ("box", "score", "instances", "second"),
    [
        ((0.0, 0.0, 0.2, 0.2), 0.60, 2, 0.60),
        ((0.0, 0.0, 0.2, 0.2), 0.50, 1, 0.50),
        ((0.2, 0.1, 0.8, 0.8), 0.69, 1, 0.0),
    ],
    ids=["as good elsewhere", "worse elsewhere", "as good in the same place"],
)
def test_only_a_box_elsewhere_that_is_about_as_good_is_another_instance(
    box: tuple[float, float, float, float], score: float, instances: int, second: float
) -> None:
    values = described(disc(100), Detection(box, score, "cat"))
    assert (values["instances"], values["second_score"]) == (instances, second)
    assert rejected_by(values) == ("instances" if instances > 1 else None)


@pytest.mark.parametrize(
    ("mask", "gate"),
    [
        (disc(20), "area"),
        (disc(130, 320, 60) | disc(130, 320, 300), "border_sides"),
        (disc(110, 320) & ~disc(110, 330), "area"),
        (np.zeros((HEIGHT, WIDTH), bool), "area"),
    ],
    ids=["small", "from top to bottom", "a sliver", "empty"],
)
def test_masks_of_no_use_are_rejected(mask: np.ndarray, gate: str) -> None:
    assert rejected_by(described(mask)) == gate


@pytest.mark.parametrize(
    ("iou", "stable", "gate"), [(0.8, 1.0, "predicted_iou"), (0.9, 0.9, "stability")]
)
def test_masks_that_the_network_doubts_are_rejected(iou: float, stable: float, gate: str) -> None:
    assert rejected_by(described_of([BOX], Cutout(disc(100), iou, stable))) == gate


def test_its_facts_are_kept_apart_by_what_changes_them() -> None:
    def kept(detector: GroundingSettings, sam: SamSettings | None = None) -> Mapping[str, Any]:
        return GroundedSegment(detector, sam or SamSettings()).settings()

    plain = kept(GroundingSettings())
    assert kept(GroundingSettings(placement=Placement("cpu", "f32", 2), text="/not/used")) == plain
    assert kept(GroundingSettings(placement=Placement(dtype="f16"))) != plain
    assert kept(GroundingSettings(package="original")) != plain
    assert kept(GroundingSettings(), SamSettings(model="facebook/sam-vit-base")) != plain


@pytest.mark.parametrize("package", PACKAGES)
def test_a_job_can_look_for_its_weights(package: Literal["original", "transformers"]) -> None:
    stage = GroundedSegment(GroundingSettings(package), SamSettings(package))
    keys = [weights.setting for weights in stage.weights()]
    wanted = ["segment.detector.model", "segment.detector.text", "segment.sam.model"]
    assert keys == [key for key in wanted if package == "original" or not key.endswith("text")]


def test_the_run_file_chooses() -> None:
    run = Run(segment=SegmentSettings(backend="reference"))
    (chosen,) = [stage for stage in measures(run) if stage.name == "segment"]
    assert isinstance(chosen, GroundedSegment)


def test_without_networks_torch_stays_out() -> None:
    code = (
        "import sys; from jobs.order import measures; from jobs.settings import Run; "
        "[stage.setup() for stage in measures(Run())]; "
        "sys.exit(bool({'torch', 'transformers', 'groundingdino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
