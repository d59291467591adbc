"""Failures are counted by stage and code, and too many of them are told from few."""

import ast
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import failures
from pipeline.errors import InputError
from pipeline.verdicts import Reason, Verdicts

ROOT = Path(__file__).parents[2]
STAGES = ("probe", "motion", "sample")


def verdicts(*closed: tuple[int, Reason], kept: int = 0) -> Verdicts:
    """So many rows with each of these reasons, the others kept."""
    count = kept + sum(rows for rows, _ in closed)
    ids = [f"{row:016d}" for row in range(count)]
    made = Verdicts(pa.table({"clip_id": ids, "video": ids}))
    for rows, reason in closed:
        made.close(np.arange(len(made.open)) < rows, [reason])
    return made


def failed(stage: str, code: str) -> Reason:
    return Reason("failed", stage, code=code)


def test_every_code_that_the_code_gives_is_listed_and_no_other() -> None:
    given = set()
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in ("Failed", "DecodeError") and isinstance(first, ast.Constant):
                    given.add(first.value)
    assert given == set(failures.CODES)


def test_a_code_that_is_not_known_is_named_with_the_nearest() -> None:
    assert failures.parse_codes(" timeout, crash") == ["timeout", "crash"]
    with pytest.raises(InputError, match="unknown code decode_timeout; did you mean timeout"):
        failures.parse_codes("crash,decode_timeout")
    with pytest.raises(InputError, match="unknown code 17; known are missing, empty"):
        failures.parse_codes("17")
    with pytest.raises(InputError, match="found no code, wanted some of missing"):
        failures.parse_codes(",")


def test_failures_in_words_the_most_first() -> None:
    found = verdicts(
        (2, failed("probe", "missing")), (3, failed("motion", "timeout")), (1, Reason("pending"))
    )
    assert failures.words(failures.count(found)) == "3 timeout in motion, 2 missing in probe"
    assert failures.words({}) == "none"


def test_the_share_is_of_the_clips_that_came_to_these_stages() -> None:
    found = verdicts(
        (50, failed("manifest", "missing")),  # their zip is not here yet
        (4, failed("probe", "missing")),
        (6, Reason("rejected", "probe", "short_side", ">= 480")),
        (2, failed("motion", "timeout")),
        (3, Reason("rejected", "motion", "top5", ">= 0.015")),
        (7, Reason("pending", "motion")),
        (5, Reason("pending", "sample")),
        kept=10,
    )
    score = failures.budget(found, STAGES, {"probe"}, 0.2)
    assert (score.reached, score.is_over) == (37, False)
    assert failures.budget(found, STAGES, {"probe"}, 0.1).is_over
    motion = failures.budget(found, STAGES, {"motion"}, 0.1)
    assert (motion.reached, motion.share, motion.is_over) == (20, 0.1, False)
    assert str(motion).endswith("allows 10.0%): 2 timeout in motion")
    assert failures.budget(verdicts(), STAGES, {"sample"}, 0.0).share == 0
    assert failures.budget(found, STAGES, set(), 0.0).share == 0  # a job without a pass
