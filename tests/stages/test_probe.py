"""What the container says."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.clip import Clip, Failed, Measurement
from stages.probe import Probe


def probe(path):
    (outcome,) = Probe().measure([Clip("id", path.name, str(path), "", "")], [None], [{}])
    return outcome


def test_a_portrait_clip_turned_by_metadata_is_measured_upright(render, tmp_path):
    frames = [np.zeros((48, 64, 3), np.uint8)] * 30
    outcome = probe(render(tmp_path / "a.mp4", frames, Fraction(24000, 1001), rotation=90))
    assert isinstance(outcome, Measurement)
    values = dict(outcome.values)
    assert values.pop("mtime") == (tmp_path / "a.mp4").stat().st_mtime
    assert values.pop("size_bytes") == (tmp_path / "a.mp4").stat().st_size
    assert values.pop("fps") == pytest.approx(23.976, abs=1e-3)
    assert values.pop("seconds") == pytest.approx(30 / 23.976, abs=1e-3)
    assert values == {
        "width": 48,
        "height": 64,
        "short_side": 48,
        "rotation": 90,
        "num_frames": 30,
        "num_frames_exact": True,
        "codec": "h264",
        "pixel_format": "yuv420p",
        "has_audio": False,
    }


def test_every_column_has_a_value(render, tmp_path):
    outcome = probe(render(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3))
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Probe.columns.names)


def test_a_broken_clip_fails_and_its_neighbours_do_not(render, tmp_path):
    good = render(tmp_path / "good.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (tmp_path / "bad.mp4").write_bytes(good.read_bytes()[:200])
    paths = [tmp_path / "none.mp4", good, tmp_path / "bad.mp4"]
    clips = [Clip("id", p.name, str(p), "", "") for p in paths]
    outcomes = Probe().measure(clips, [None] * 3, [{}] * 3)
    assert [getattr(o, "code", "measured") for o in outcomes] == [
        "missing",
        "measured",
        "unreadable",
    ]
    assert isinstance(outcomes[0], Failed)
