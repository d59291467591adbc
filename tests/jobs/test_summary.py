"""`python -m jobs.summary`: what it concludes, and from what."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.summary import main


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.001, "(+0.0010 to +0.0200): the right reference helps"),
        (-0.001, "(-0.0010 to +0.0200): may be chance yet: train longer"),
    ],
)
def test_a_gap_counts_when_its_interval_excludes_0(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    low: float,
    verdict: str,
):
    verdicts = {"verdict": ["kept"], "stage": [""], "code": [""]}
    pq.write_table(pa.table(verdicts), tmp_path / "verdicts.parquet")
    losses = {"held_out_right": 0.99, "held_out_shuffled": 1.0, "held_out_none": 1.0}
    gap = {"held_out_gap": 0.01, "held_out_gap_low": low, "held_out_gap_high": 0.02}
    (tmp_path / "train").mkdir()
    line = json.dumps({"step": 10, **losses, **gap}) + "\n"
    (tmp_path / "train" / "metrics.jsonl").write_text(line)
    monkeypatch.setattr("sys.argv", ["summary", "--out", str(tmp_path)])
    assert main() == 0
    assert f"reference gap +0.0100 {verdict}" in capsys.readouterr().out
