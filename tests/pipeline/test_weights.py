"""Weights are looked for where the run file says, and what is not there is one clear line."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.weights import ONE_FILE, Weights, fetch, find, identity, size_bytes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = Weights("someone/some-model", "appearance.model")


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def cache(tmp_path: Path) -> Callable[..., Path]:
    """Lays a model into the hub's cache as the hub does: its files, and which it should have."""

    def lay(files: dict[str, str], listed: Sequence[str] = (), commit: str = COMMIT) -> Path:
        model = tmp_path / "hub" / "models--someone--some-model"
        snapshot = model / "snapshots" / commit
        for name, text in files.items():
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_text(text)
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(commit)
        if listed:
            (model / "trees").mkdir(exist_ok=True)
            tree = {name: {"size": 1, "blob_id": "0" * 40} for name in listed}
            (model / "trees" / f"{commit}.json").write_text(
                json.dumps({"format_version": 1, "files": tree})
            )
        return snapshot

    return lay


def test_a_folder_here_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert find(Weights(str(tmp_path), "motion.model")) == tmp_path
    assert fetch(Weights(str(tmp_path), "motion.model")) == tmp_path


@pytest.mark.parametrize(
    ("files", "wanted", "lacking"),
    [
        ((), Weights("", "x"), r"\*\.safetensors"),
        (("config.json", "model.bin"), Weights("", "x"), r"\*\.safetensors"),
        (("vae/a.safetensors",), Weights("", "x", files=("text/*",)), r"\*\.safetensors"),
        (("config.json",), Weights("", "x", needed=("*.json", "a.txt|b.txt")), "a.txt or b.txt"),
    ],
)
def test_a_folder_without_what_is_needed_says_what(
    tmp_path: Path, files: Sequence[str], wanted: Weights, lacking: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"^x: found no {lacking} in "):
        find(replace(wanted, name=str(tmp_path)))


def test_a_single_file_is_no_folder_and_no_model_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found the folder .*; wanted a file there, or its addr"):
        find(Weights(str(tmp_path), "appearance.head", files=ONE_FILE))
    with pytest.raises(InputError, match=r"found nothing at 'someone/head'; wanted a file there"):
        find(Weights("someone/head", "appearance.head", files=ONE_FILE))


def test_weights_are_told_apart_by_what_is_in_them_and_not_by_where_they_lie(
    tmp_path: Path, cache: Callable[..., Path]
) -> None:
    def of(folder: str, last: bytes) -> str:
        file = tmp_path / folder / "model.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(3 << 20) + last)
        (file.parent / "notes.md").write_text(folder)
        return identity(Weights(str(file.parent), "x"))

    assert of("a", b"1") == of("b", b"1") != of("a", b"2")
    cache({"model.safetensors": "weights"})
    assert identity(MODEL) == COMMIT


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
    file = tmp_path / "torch" / "hub" / "checkpoints" / "raft-9a129038.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert find(Weights(f"https://example.org/models/{file.name}", "motion.model")) == file


def test_what_the_hubs_cache_holds_whole_is_found(cache: Callable[..., Path]) -> None:
    files = {"config.json": "{}", "model.safetensors": "weights", "readme.md": "not asked for"}
    snapshot = cache(files, listed=[*files, "model.bin"])
    assert find(MODEL) == fetch(MODEL) == snapshot
    assert size_bytes(snapshot, MODEL) == len("{}weights")


def test_a_model_that_was_fetched_half_is_not_here(cache: Callable[..., Path]) -> None:
    cache({"config.json": "{}"}, listed=["config.json", "model.safetensors"])
    with pytest.raises(InputError, match=r"run python -m jobs\.weights"):
        find(MODEL)


def test_other_parts_of_a_model_are_not_the_one_that_is_wanted(cache: Callable[..., Path]) -> None:
    cache({"vae/model.safetensors": "weights"})
    assert find(Weights(MODEL.name, "latents.codec", files=("vae/*",))).exists()
    with pytest.raises(InputError, match="are not on this machine"):
        find(Weights(MODEL.name, "base", files=("transformer/*",)))


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_shard_that_the_index_names_and_nobody_copied_is_named(
    cache: Callable[..., Path], is_folder: bool
) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    snapshot = cache({"model.safetensors.index.json": index, "model-1.safetensors": "weights"})
    wanted = Weights(str(snapshot), "motion.model") if is_folder else MODEL
    with pytest.raises(InputError, match=r"found no model-2\.safetensors in"):
        find(wanted)


def test_another_revision_is_not_the_one_that_is_wanted(cache: Callable[..., Path]) -> None:
    snapshot = cache({"model.safetensors": "weights"})
    assert find(Weights(MODEL.name, "segment.sam", COMMIT)) == snapshot
    with pytest.raises(InputError, match="at revision v2 are not on this machine"):
        find(Weights(MODEL.name, "segment.sam", "v2"))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of three files."""
    files = tmp_path / "served"
    files.mkdir()
    (files / "head.pth").write_bytes(b"weights")
    (files / "raft-9a129038.pth").write_bytes(b"weights")
    (files / "raft-0badc0de.pth").write_bytes(b"weights")
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_to_where_torch_hub_looks(tmp_path: Path, served: str) -> None:
    file = fetch(Weights(f"{served}/raft-9a129038.pth", "motion.model"))
    assert file == tmp_path / "torch" / "hub" / "checkpoints" / "raft-9a129038.pth"
    assert file.read_bytes() == b"weights"


def test_two_files_of_one_name_lie_beside_each_other(served: str) -> None:
    one, other = (fetch(Weights(f"{served}/head.pth{end}", "x")) for end in ("", "?of=another"))
    assert one != other
    assert one.read_bytes() == other.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("raft-0badc0de.pth", "its name says 0badc0de"), ("gone.pth", "HTTP Error 404")],
)
def test_a_file_that_is_not_what_it_should_be_leaves_nothing(
    tmp_path: Path, served: str, name: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        fetch(Weights(f"{served}/{name}", "motion.model"))
    assert not [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]
