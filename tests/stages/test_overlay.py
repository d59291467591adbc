"""How much of the picture text covers: what was drawn is found, what is there by itself is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jobs.rehearsal import text_detector
from pipeline.clip import Clip, Measurement
from pipeline.errors import InputError
from pipeline.frames import Frames
from stages.networks.text_detector import TextDetector, TextDetectorSettings
from stages.overlay import Overlay, OverlaySettings

Texture = Callable[..., np.ndarray]
WIDTH, HEIGHT = 640, 360
CLIP = Clip("a" * 16, "a.mp4", "a.mp4", "A clip.", "a")
TITLE = ((60, 300), "Breaking news from the coast", 1.1, (255, 255, 255), 3)
MARK = ((440, 40), "sample.com", 0.9, (235, 235, 235), 2)


@pytest.fixture(scope="module")
def place(texture: Texture) -> np.ndarray:
    """A place of soft colours, larger than the picture."""
    return cv2.GaussianBlur(texture(HEIGHT + 100, WIDTH + 200), (0, 0), 5) // 2 + 40


def write(
    image: np.ndarray,
    at: tuple[int, int],
    words: str,
    size: float,
    colour: tuple[int, int, int],
    thick: int,
) -> None:
    cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)


def shown(
    place: np.ndarray, *written: tuple[Any, ...], pan: int = 40, tilt: int = 0, count: int = 3
) -> Frames:
    """Frames two seconds apart; written: place, words, size, colour and thickness of letters."""
    images = []
    for number in range(count):
        left, top = pan * number, 50 - tilt * number
        image = np.ascontiguousarray(place[top : top + HEIGHT, left : left + WIDTH])
        for each in written:
            write(image, *each)
        images.append(image)
    numbers = tuple(50 * n for n in range(count))
    return Frames(np.stack(images), numbers, 25.0, 50 * count, WIDTH, HEIGHT)


def true_share(*written: tuple[Any, ...]) -> float:
    """Of the boxes of the words."""
    boxes = [cv2.getTextSize(w, cv2.FONT_HERSHEY_SIMPLEX, s, t)[0] for _, w, s, _, t in written]
    return sum(width * height for width, height in boxes) / (WIDTH * HEIGHT)


def measured(frames: Frames, settings: OverlaySettings | None = None) -> Mapping[str, Any]:
    stage = Overlay(settings)
    stage.setup()
    (outcome,) = stage.measure([CLIP], [frames], [{}])
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Overlay.columns.names)
    return outcome.values


@pytest.mark.parametrize("pan", [0, 40], ids=["fixed camera", "camera that pans"])
def test_a_picture_without_text_has_none(place: np.ndarray, pan: int) -> None:
    assert measured(shown(place, pan=pan)) == {"share": 0.0, "most": 0.0}


@pytest.mark.parametrize("written", [(TITLE,), (MARK,), (TITLE, MARK)])
@pytest.mark.parametrize("pan", [0, 40], ids=["fixed camera", "camera that pans"])
def test_the_share_of_text_is_near_the_truth(
    place: np.ndarray, written: tuple[Any, ...], pan: int
) -> None:
    values = measured(shown(place, *written, pan=pan))
    assert values["share"] == pytest.approx(true_share(*written), rel=0.4)


def test_text_that_does_not_stay_where_it_is_is_of_the_scene(place: np.ndarray) -> None:
    signed = place.copy()
    write(signed, *TITLE)
    assert measured(shown(signed, pan=40, tilt=25))["share"] == 0
    along = measured(shown(signed, pan=40))  # letters come to lie on other letters
    assert along["share"] < 0.25 * true_share(TITLE)


def test_a_title_of_the_first_half_counts_half(place: np.ndarray) -> None:
    titled, bare = shown(place, TITLE), shown(place)
    images = np.concatenate([titled.images[:2], bare.images[2:]])
    values = measured(replace(bare, images=images))
    assert values["share"] == pytest.approx(values["most"] / 2)
    assert values["most"] == measured(titled)["most"]


@pytest.mark.parametrize("what", ["grid", "leaves", "steps"])
def test_fine_and_regular_things_are_no_text(what: str) -> None:
    rng = np.random.default_rng(3)
    image = np.full((HEIGHT + 100, WIDTH + 200, 3), 90, np.uint8)
    if what == "grid":
        image[::18], image[:, ::18] = 200, 200
    elif what == "leaves":
        specks = (rng.random(image.shape[:2]) > 0.9).astype(np.float32)
        image[...] = np.clip(40 + 500 * cv2.GaussianBlur(specks, (0, 0), 3), 0, 255)[..., None]
    else:
        for column in range(0, WIDTH + 200, 40):
            image[100:140, column : column + 20] = 220
    assert measured(shown(image, pan=0))["share"] < 0.002


def test_a_single_frame_is_measured(place: np.ndarray) -> None:
    values = measured(shown(place, TITLE, count=1))
    assert values["share"] == values["most"] == pytest.approx(true_share(TITLE), rel=0.4)


def test_the_numbers_belong_to_the_version(place: np.ndarray) -> None:
    values = measured(shown(place, TITLE, MARK))
    assert Overlay.version == 1
    stored = {"share": 0.0738, "most": 0.0738}
    assert values == pytest.approx(stored, abs=1e-3)


def bright(tmp_path: Path, **changed: float) -> OverlaySettings:
    """A detector that takes bright for text: the whole path of an ONNX file through OpenCV."""
    file = text_detector.save(tmp_path / "detector.onnx", gain=20, bound=1.0)
    detector = TextDetectorSettings(str(file), **changed)
    return OverlaySettings("reference", detector=detector)


def test_a_network_finds_the_boxes_that_stay(tmp_path: Path) -> None:
    """Boxes grow by area x unclip / outline on each side; what is there once does not count."""
    images = np.full((3, 320, 640, 3), 60, np.uint8)
    images[:, 100:140, 200:360] = 255
    images[1, 200:260, 64:128] = 255  # once
    images[:, 20:22, 20:22] = 255  # a speck
    frames = Frames(images, (0, 50, 100), 25.0, 150, 640, 320)
    grown = 160 * 40 * 1.5 / (160 + 40)
    wanted = (160 + grown) * (40 + grown) / (640 * 320)
    assert measured(frames, bright(tmp_path))["share"] == pytest.approx(wanted, rel=0.05)
    alone = measured(frames, bright(tmp_path, unclip=0.0))["share"]
    assert alone == pytest.approx(160 * 40 / (640 * 320), rel=0.05)


def test_a_network_sees_channels_normalised_as_imagenets_blue_first(tmp_path: Path) -> None:
    """The map of a plain picture is sigmoid(gain x (mean of (v - mean) / deviation - bound))."""
    colour = np.array((200, 120, 40))  # red, green, blue
    levels = (colour[::-1] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    file = text_detector.save(tmp_path / "detector.onnx", 4, float(levels.mean()) - 0.1)
    picture = np.tile(colour.astype(np.uint8), (64, 96, 1))
    value = 1 / (1 + np.exp(-4 * 0.1))
    for bound, seen in ((value - 0.01, True), (value + 0.01, False)):
        detector = TextDetector(file, TextDetectorSettings(box_threshold=bound))
        assert detector.covered(picture).all() == seen
        assert detector.covered(picture).any() == seen


def test_a_file_that_is_no_network_and_no_file_at_all_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    settings = OverlaySettings("reference", detector=TextDetectorSettings(str(broken)))
    with pytest.raises(InputError, match="OpenCV cannot read"):
        Overlay(settings).setup()
    text_detector.save(broken, gain=1, bound=0, maps=2)
    with pytest.raises(InputError, match=r"makes \(1, 2, 64, 96\) of a picture of \(64, 96\)"):
        Overlay(settings).setup()
    with pytest.raises(InputError, match=r"overlay\.detector\.model is empty"):
        Overlay(OverlaySettings("reference"))


def test_only_what_a_backend_uses_makes_its_fingerprint(tmp_path: Path) -> None:
    named = replace(bright(tmp_path), backend="cpu")
    assert Overlay(named).settings() == Overlay().settings()
    assert "strokes" not in Overlay(bright(tmp_path)).settings()
    assert [weights.setting for weights in Overlay(bright(tmp_path)).weights()] == [
        "overlay.detector.model"
    ]
