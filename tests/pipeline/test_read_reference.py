"""Anybody's picture as a reference: cut out where it can be, upright, and white around it."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.reference import ReferenceSettings, read_reference

SIZE = (72, 48)


def opened(image: Image.Image, **options: object) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return read_reference("a.png", file.getvalue(), SIZE, ReferenceSettings())


def test_transparency_cuts_the_subject_out_and_centres_it() -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[2:12, 2:12] = (200, 30, 30, 255)
    pixels[..., 1] = 220  # colour under what is transparent must not show
    pixels[2:12, 2:12, 1] = 30
    picture = opened(Image.fromarray(pixels))
    assert picture.shape == (48, 72, 3)
    assert tuple(picture[24, 36]) == (200, 30, 30)
    assert (picture[0] == 255).all()
    assert (picture[:, 0] == 255).all()


def test_a_picture_without_transparency_stays_whole_on_white_and_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        picture = opened(Image.new("RGB", (100, 100), (10, 20, 30)))
    assert "no transparency" in caplog.text
    assert tuple(picture[24, 36]) == (10, 20, 30)
    assert tuple(picture[24, 2]) == (255, 255, 255)


def test_a_reference_of_ours_passes_unchanged() -> None:
    ours = np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)
    assert np.array_equal(opened(Image.fromarray(ours)), ours)


def test_a_camera_held_sideways_is_turned_upright() -> None:
    pixels = np.zeros((48, 72, 3), np.uint8)
    pixels[:, :36] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = opened(Image.fromarray(pixels), exif=exif)
    assert picture[24, 60].tolist() == [255, 255, 255]
    assert picture[24, 10].tolist() == [0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.png"):
        read_reference("a.png", content, SIZE, ReferenceSettings())


def test_nothing_but_transparency_is_no_subject() -> None:
    with pytest.raises(InputError, match="all transparent"):
        opened(Image.new("RGBA", (20, 20), (255, 0, 0, 0)))
