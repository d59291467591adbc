"""The subject of the reference is found again, or is missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from jobs.rehearsal import grounding
from jobs.rehearsal.clip import save_clip, save_head, save_tokenizer
from pipeline.clip import Clip, Failed, Measurement
from pipeline.errors import InputError
from pipeline.filters import first_rejection
from pipeline.frames import Frames
from pipeline.mask import box_iou, box_of, rle_encode
from stages.networks.grounding import GroundingSettings, load_detector
from stages.networks.placement import Placement
from stages.pair import Pair, PairSettings

WIDTH, HEIGHT, RADIUS = 480, 270, 45
NUMBERS = (0, 3, 75)
CLIP = Clip("a" * 16, "a.mp4", "a.mp4", "A ball.", "a")
CPU = Pair(PairSettings(), NUMBERS[1:], GroundingSettings())


def disc(x: float, y: float) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(xs - x, ys - y) <= RADIUS


def scene(ball: tuple[float, float] | None, turned: float = 0.0, pan: int = 0) -> np.ndarray:
    """A striped red ball, or none, before a place of many greens."""
    rng = np.random.default_rng(1)
    noise = cv2.resize(rng.random((30, 60), np.float32) - 0.5, (960, 540))[135 : 135 + HEIGHT]
    picture = np.array((90.0, 120.0, 80.0)) + 90 * noise[:, 200 + pan : 200 + pan + WIDTH, None]
    if ball is not None:
        ys, xs = np.mgrid[:HEIGHT, :WIDTH]
        along = (xs - ball[0]) * np.cos(turned) + (ys - ball[1]) * np.sin(turned)
        stripes = np.where(np.sin(along / 5) > 0, 1.0, 0.6)[..., None] * (210, 60, 40)
        picture = np.where(disc(*ball)[..., None], stripes, picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def shown(first: np.ndarray, last: np.ndarray) -> Frames:
    """A clip whose ball is at (150, 130) in frame 0."""
    images = np.stack([scene((150, 130)), first, last])
    return Frames(images, NUMBERS, 25.0, 100, WIDTH, HEIGHT)


def facts(entity: str | None = "ball") -> Mapping[str, Mapping[str, Any]]:
    mask = rle_encode(disc(150, 130))
    return {
        "entities": {"main_entity": entity},
        "segment": {"mask_rle": mask, "mask_width": WIDTH, "mask_height": HEIGHT},
    }


def measured(last: np.ndarray, first: np.ndarray | None = None) -> Mapping[str, Any]:
    frames = shown(scene((152, 130)) if first is None else first, last)
    (outcome,) = CPU.measure([CLIP], [frames], [facts()])
    assert isinstance(outcome, Measurement), outcome
    assert set(outcome.values) == set(Pair.columns.names)
    return outcome.values


def box(values: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(values[side] for side in ("x0", "y0", "x1", "y1"))


@pytest.mark.parametrize("pan", [0, 60], ids=["fixed camera", "camera that pans"])
def test_a_subject_that_moved_and_turned_is_found_where_it_is(pan: int) -> None:
    values = measured(scene((330, 150), turned=1.2, pan=pan))
    x0, y0, x1, y1 = box_of(disc(330, 150)) or (0, 0, 0, 0)
    true = (x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT)
    assert box_iou(box(values), true) > 0.7
    assert values["found_again"] > 0.5
    assert first_rejection(Pair.filters, values) is None


@pytest.mark.parametrize("why", ["left", "covered", "half a ball left at the rim"])
def test_a_subject_that_is_not_there_any_more_is_missed(why: str) -> None:
    last = scene((150, 130) if why == "covered" else None, pan=40)
    if why == "covered":
        last[60:200, 80:220] = (60, 70, 160)
    if why.startswith("half"):
        last = scene((WIDTH + 35, 130))
    rejection = first_rejection(Pair.filters, measured(last))
    assert rejection is not None
    assert rejection.measure == "found_again"


def test_the_likeness_is_1_for_a_copy_and_falls_as_the_subject_turns() -> None:
    last = scene((330, 150))
    copied, turned, other = (
        measured(last, first)["likeness"]
        for first in (scene((150, 130)), scene((150, 130), turned=0.2), scene((150, 130), 1.5))
    )
    assert copied == pytest.approx(1, abs=1e-3)
    assert 0.9 > turned > other


def test_the_likeness_is_the_correlation_of_the_pixels(texture: Callable[..., np.ndarray]) -> None:
    """With a picture that is half the reference and half noise, where it lies, in numpy."""
    reference = scene((150, 130))
    first = (reference // 2 + texture(HEIGHT, WIDTH) // 2).astype(np.uint8)
    size = (round(WIDTH * 224 / HEIGHT), 224)
    one, two, share = (
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(float)
        for picture in (reference, first, disc(150, 130).astype(np.float32))
    )
    a, b = (picture[share >= 0.5] - picture[share >= 0.5].mean(0) for picture in (one, two))
    wanted = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert measured(first, first)["likeness"] == pytest.approx(wanted, abs=0.002)


def test_a_clip_that_cannot_be_compared_has_failed_with_a_code() -> None:
    whole = shown(scene((152, 130)), scene((330, 150)))
    short = replace(whole, images=whole.images[:2], numbers=NUMBERS[:2], num_frames=70)
    small = replace(whole, width=WIDTH // 2, height=HEIGHT // 2)
    nothing = {**facts(), "segment": {"mask_rle": None}}
    outcomes = CPU.measure([CLIP] * 3, [short, small, whole], [facts(), facts(), nothing])
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert [outcome.code for outcome in failed] == ["partial", "changed", "no_mask"]
    assert failed[0].message == "found 70 frames: a sample needs a clip of 76"


def test_the_same_pixels_give_the_same_facts_wherever_they_lie() -> None:
    frames = shown(scene((152, 130)), scene((330, 150), turned=1.2))
    first = CPU.measure([CLIP], [frames], [facts()])
    for offset in (1, 7, 32, 45):
        room = np.empty(frames.images.size + 64, np.uint8)
        moved = room[offset : offset + frames.images.size].reshape(frames.images.shape)
        moved[:] = frames.images
        assert CPU.measure([CLIP], [replace(frames, images=moved)], [facts()]) == first


def test_the_numbers_belong_to_the_version() -> None:
    values = measured(scene((330, 150), turned=1.2, pan=60))
    assert Pair.version == 2
    stored = {"found_again": 0.5947, "likeness": 0.9772}
    assert {name: values[name] for name in stored} == pytest.approx(stored, abs=0.005)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairSettings, GroundingSettings]:
    """Small networks of the real classes, with random weights; the detector says what it thinks."""
    folder = tmp_path_factory.mktemp("pair")
    clip = save_tokenizer(save_clip(folder / "clip"))
    detector = grounding.save(folder / "detector", "transformers")
    settings = PairSettings(
        "reference",
        model=str(clip),
        head=str(save_head(folder / "head.pth")),
        placement=Placement("cpu"),
    )
    return settings, replace(detector, box_threshold=0.0, text_threshold=0.0)


def test_networks_measure_what_transformers_measures_in_the_same_crops(
    networks: tuple[PairSettings, GroundingSettings],
) -> None:
    settings, detector = networks
    stage = Pair(settings, NUMBERS[1:], detector)
    stage.setup()
    frames = shown(scene((152, 130)), scene((330, 150)))
    turned = shown(scene((150, 130), 1.5), scene((60, 90)))
    outcomes = stage.measure([CLIP] * 2, [frames, turned], [facts("frog"), facts("cat")])
    values = [outcome.values for outcome in outcomes if isinstance(outcome, Measurement)]
    model: Any = CLIPModel.from_pretrained(settings.model).eval()
    cut = CLIPImageProcessorPil.from_pretrained(settings.model)
    words = CLIPTokenizer.from_pretrained(settings.model)
    x0, y0, x1, y1 = box_of(disc(150, 130)) or (0, 0, 0, 0)
    with torch.inference_mode():
        crop = cut(frames.images[0][y0:y1, x0:x1], return_tensors="pt")
        picture = model.get_image_features(**crop).pooler_output.double()
        said = words(["a photo of a frog"], return_tensors="pt")
        text = model.get_text_features(**said).pooler_output.double()
    cosine = torch.nn.functional.cosine_similarity(picture, text).item()
    assert values[0]["word_similarity"] == pytest.approx(cosine, abs=2e-4)
    found = load_detector(detector).detect([frames.images[2]], ["frog"])[0][0]
    assert values[0]["found_again"] == pytest.approx(found.score, abs=1e-5)
    assert box(values[0]) == pytest.approx(found.box, abs=1e-4)
    assert values[0]["likeness"] > 0.5
    layers = torch.load(settings.head)
    score = picture / picture.norm()
    for number in (0, 2, 4):
        score = score @ layers[f"layers.{number}.weight"].double().T
        score = score + layers[f"layers.{number}.bias"].double()
    assert values[0]["crop_aesthetic"] == pytest.approx(score.item(), abs=1e-3)
    assert values[0]["crop_aesthetic"] == pytest.approx(values[1]["crop_aesthetic"], abs=1e-6)


def test_where_the_detector_sees_nothing_there_is_no_likeness_and_the_clip_is_rejected(
    networks: tuple[PairSettings, GroundingSettings],
) -> None:
    settings, detector = networks
    stage = Pair(settings, NUMBERS[1:], replace(detector, box_threshold=1.0))
    stage.setup()
    frames = shown(scene((152, 130)), scene((330, 150)))
    seen, unnamed = stage.measure([CLIP] * 2, [frames] * 2, [facts("frog"), facts(None)])
    assert isinstance(seen, Measurement)
    assert (seen.values["found_again"], seen.values["x0"], seen.values["likeness"]) == (
        0,
        None,
        None,
    )
    assert first_rejection(Pair.filters, seen.values) is not None
    assert isinstance(unnamed, Failed)
    assert unnamed.code == "no_entity"


def test_a_head_of_another_clip_is_refused(
    networks: tuple[PairSettings, GroundingSettings], tmp_path: Path
) -> None:
    settings, detector = networks
    other = replace(settings, head=str(save_head(tmp_path / "head.pth", width=20)))
    with pytest.raises(InputError, match=r"pair\.head: .* takes 20 numbers"):
        Pair(other, NUMBERS[1:], detector).setup()


def test_a_clip_without_a_tokenizer_is_refused(
    networks: tuple[PairSettings, GroundingSettings], tmp_path: Path
) -> None:
    settings, detector = networks
    mute = replace(settings, model=str(save_clip(tmp_path)))
    with pytest.raises(InputError, match=r"pair\.model: .* has no tokenizer"):
        Pair(mute, NUMBERS[1:], detector).setup()


def test_only_what_a_backend_uses_makes_its_fingerprint(
    networks: tuple[PairSettings, GroundingSettings],
) -> None:
    settings, detector = networks
    elsewhere = replace(settings, placement=Placement("cpu", batch=2))
    assert Pair(settings, NUMBERS[1:], detector).settings() == (
        Pair(elsewhere, NUMBERS[1:], detector).settings()
    )
    assert CPU.settings() == Pair(PairSettings(model="x"), NUMBERS[1:], detector).settings()
    assert CPU.settings() != Pair(PairSettings(), (3, 72), detector).settings()
    assert not CPU.weights()
