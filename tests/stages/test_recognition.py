"""What CLIP is shown of a subject."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.recognition import square_of


def test_the_whole_of_a_long_subject_is_in_the_square(texture: Callable[..., np.ndarray]) -> None:
    picture = texture(100, 200)
    (tall,) = square_of(picture, (0.5, 0.1, 0.6, 0.9))
    (wide,) = square_of(picture, (0.0, 0.5, 1.0, 0.6))
    assert tall.shape == (80, 80, 3)
    assert wide.shape == (200, 200, 3)
    np.testing.assert_array_equal(tall[:, 30:50], picture[10:90, 100:120])
    np.testing.assert_array_equal(wide[95:105], picture[50:60])
    assert np.ptp(np.delete(tall, np.s_[30:50], axis=1), axis=(0, 1)).max() == 0
