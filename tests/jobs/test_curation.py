"""What a run file may ask for, seen before anything is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.curation import look_at
from jobs.settings import CorpusSettings, Run
from pipeline.errors import InputError
from pipeline.filters import FilterChange
from stages.sample import SampleSettings


def test_a_window_that_needs_longer_clips_than_pass_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,A frog.\n")
    corpus = CorpusSettings(str(tmp_path / "clips.csv"))
    late = SampleSettings(reference_frame=30)
    run = Run(str(tmp_path / "run"), corpus=corpus, sample=late)
    with pytest.raises(InputError, match=r"frame is number 102, and clips of 76 frames pass.* 103"):
        look_at(run)
    look_at(replace(run, filters={"probe": {"num_frames": FilterChange(min=103)}}))
    look_at(replace(run, filters={"probe": {"num_frames": FilterChange(off=True)}}))
