"""Fidelity: the subject itself scores best, another one worst, and what lies between, between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.clip import Clip, Failed, Measurement
from pipeline.errors import InputError
from pipeline.frames import Frames
from stages.fidelity import Fidelity, Gaussian, frechet, subject_mask

WHITE = (255, 255, 255)


def subject(colour: tuple[int, int, int], stripes: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball of 80 pixels with stripes, (80, 80, 3), and its mask."""
    y, x = np.mgrid[:80, :80]
    light = 0.75 + 0.25 * np.sin(2 * np.pi * stripes * x / 80)
    ball = np.clip(np.asarray(colour) * light[..., None], 0, 255).astype(np.uint8)
    return ball, (x - 39.5) ** 2 + (y - 39.5) ** 2 < 38**2


BALLS = {
    "red": subject((220, 40, 30), 3),
    "blue": subject((40, 60, 200), 3),
    "finely striped": subject((220, 40, 30), 16),
}


def reference(name: str) -> np.ndarray:
    return laid(np.full((128, 192, 3), 255, np.uint8), name, (56, 24))


def laid(ground: np.ndarray, name: str, corner: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    ball, mask = BALLS[name]
    side = round(80 * scale)
    small = cv2.resize(ball, (side, side), interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype(np.uint8), (side, side)) > 0
    picture, (x, y) = ground.copy(), corner
    picture[y : y + side, x : x + side][inside] = small[inside]
    return picture


@pytest.fixture(scope="module")
def fidelity(tmp_path_factory: pytest.TempPathFactory) -> Fidelity:
    folder = tmp_path_factory.mktemp("references")
    urls: dict[str, str] = {}
    for name in BALLS:
        urls[name] = str(folder / f"{name}.png")
        Image.fromarray(reference(name)).save(urls[name])
    stage = Fidelity(urls)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def ground(texture: Callable[..., np.ndarray]) -> np.ndarray:
    return (texture(128, 192, 3) // 3 + 90).astype(np.uint8)


def measured(stage: Fidelity, of: str, images: list[np.ndarray]) -> Mapping[str, float]:
    frames = Frames(np.stack(images), tuple(range(len(images))), 8.0, len(images), 192, 128)
    (outcome,) = stage.measure([Clip(of, of, "", "", of)], [frames], [{}])
    assert isinstance(outcome, Measurement), outcome
    return outcome.values


def moving(ground: np.ndarray, name: str, scale: float = 0.8) -> list[np.ndarray]:
    return [laid(ground, name, (10 + 8 * n, 20), scale) for n in range(9)]


def test_a_video_of_the_reference_is_nearest_and_another_subject_farthest(
    fidelity: Fidelity, ground: np.ndarray
) -> None:
    still = measured(fidelity, "red", [reference("red")] * 5)["distance"]
    own = measured(fidelity, "red", moving(ground, "red"))["distance"]
    empty = measured(fidelity, "red", [ground] * 5)["distance"]
    other = measured(fidelity, "red", moving(np.full_like(ground, 128), "blue"))["distance"]
    assert still < own < min(empty, other)
    assert own < 0.5 * min(empty, other)


def test_the_subject_is_found_wherever_it_is_and_whatever_its_size(
    fidelity: Fidelity, ground: np.ndarray
) -> None:
    found = [
        measured(fidelity, "red", [laid(ground, "red", corner, scale)] * 3)
        for corner, scale in (((0, 0), 0.6), ((110, 60), 0.8), ((50, 10), 1.3))
    ]
    assert [values["rank"] for values in found] == [1, 1, 1]


def test_a_subject_that_is_hidden_in_half_of_the_frames_is_farther(
    fidelity: Fidelity, ground: np.ndarray
) -> None:
    own = moving(ground, "red")
    half = [image if n < 4 else ground for n, image in enumerate(own)]
    assert measured(fidelity, "red", half)["distance"] > measured(fidelity, "red", own)["distance"]


@pytest.mark.parametrize("name", list(BALLS))
def test_the_right_reference_is_retrieved_among_all(
    fidelity: Fidelity, ground: np.ndarray, name: str
) -> None:
    values = measured(fidelity, name, moving(ground, name))
    assert (values["rank"], values["nearest"], values["candidates"]) == (1, name, 3)
    wrong = next(other for other in BALLS if other != name)
    assert measured(fidelity, wrong, moving(ground, name))["rank"] > 1


def test_texture_alone_tells_two_subjects_of_one_colour_apart(
    fidelity: Fidelity, ground: np.ndarray
) -> None:
    video = moving(ground, "red")
    right, wrong = (measured(fidelity, name, video) for name in ("red", "finely striped"))
    assert wrong["texture"] > 1.5 * right["texture"]


def test_the_distance_of_gaussians_is_the_textbook_one() -> None:
    """Along one axis and for commuting covariances the 2-Wasserstein distance is known."""
    a = Gaussian(np.array([0.0, 0.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([3.0, 4.0]), np.diag([1.0, 1.0]))
    assert frechet(a, b) == pytest.approx(np.sqrt(25 + (2 - 1) ** 2 + (3 - 1) ** 2))
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    turned = np.array([[2.0, 1.0], [1.0, 2.0]])
    c = Gaussian(a.mean, turned)
    assert frechet(a, c) == pytest.approx(frechet(c, a))


def test_white_inside_a_subject_belongs_to_it() -> None:
    picture = np.full((60, 60, 3), 255, np.uint8)
    picture[10:50, 10:50] = (200, 0, 0)
    picture[25:35, 25:35] = WHITE
    mask = subject_mask(picture)
    assert mask[30, 30]
    assert not mask[5, 5]
    assert not mask[10, 10]


def test_a_video_without_a_reference_has_failed(fidelity: Fidelity, ground: np.ndarray) -> None:
    frames = Frames(ground[None], (0,), 8.0, 1, 192, 128)
    (outcome,) = fidelity.measure([Clip("green", "green", "", "", "green")], [frames], [{}])
    assert isinstance(outcome, Failed)
    assert outcome.code == "no_reference"


def test_a_missing_reference_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reference picture is missing"):
        Fidelity({"red": str(tmp_path / "gone.png")}).setup()
