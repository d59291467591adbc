"""Weights are looked for where the run file says, and what is not there is one clear line."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.weights import Weights, fetch, find


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_a_folder_here_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find(Weights(str(tmp_path), "motion.model")) == tmp_path
    assert fetch(Weights(str(tmp_path), "motion.model")) == tmp_path


def test_a_folder_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    wanted = Weights(str(tmp_path / "none"), "segment.sam")
    with pytest.raises(InputError, match=r"segment\.sam: found nothing at"):
        find(wanted)


@pytest.mark.parametrize("name", ["nobody/no-model", "https://localhost:1/none.pth", "two words"])
def test_weights_that_were_never_fetched_name_the_job_that_does(name: str) -> None:
    with pytest.raises(InputError, match=r"run python -m jobs\.weights"):
        find(Weights(name, "appearance.model"))


def test_a_fetch_that_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched") as raised:
        fetch(Weights("https://localhost:1/none.pth", "appearance.head"))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_torch_hub_has_is_found(tmp_path: Path) -> None:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "raft.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert find(Weights("https://example.org/models/raft.pth", "motion.model")) == file
