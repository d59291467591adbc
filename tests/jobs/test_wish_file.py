"""A file of prompts: three forms of the same rows, and what is wrong with them, by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.generate_settings import GenerateRun, WishSettings
from jobs.wish_file import read_wishes
from pipeline.config import load
from pipeline.errors import InputError

CSV = """prompt,entity,reference,name,seed
"A dog, brown,
runs.",dog,dog.png,,7

A sea.,,,waves,
"""
JSONL = """{"prompt": "A dog, brown,\\nruns.", "entity": "dog", "reference": "dog.png", "seed": 7}

{"prompt": "A sea.", "name": "waves", "seed": null}
"""
TOML = """
[[wishes]]
prompt = "A dog, brown,\\nruns."
entity = "dog"
reference = "dog.png"
seed = 7
[[wishes]]
prompt = "A sea."
name = "waves"
"""


def read(folder: Path, name: str, text: str) -> list[WishSettings]:
    (folder / name).write_text(text)
    return read_wishes(str(folder / name))


@pytest.mark.parametrize(("name", "text"), [("w.csv", CSV), ("w.jsonl", JSONL), ("w.toml", TOML)])
def test_all_three_forms_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    dog = str(tmp_path / "dog.png")
    assert read(tmp_path, name, "\ufeff" * (name == "w.csv") + text) == [
        WishSettings("A dog, brown,\nruns.", "dog", dog, "w1", 7),
        WishSettings("A sea.", name="waves"),
    ]


def test_the_files_of_the_docs_can_be_read(tmp_path: Path) -> None:
    said = (Path(__file__).parents[2] / "docs" / "running.md").read_text().split("## Generating")[1]
    prompts, file = said.split("```csv\n")[1], said.split("```toml\n")[1]
    wishes = read(tmp_path, "prompts.csv", prompts.split("```")[0])
    assert [(w.name, w.entity, w.seed) for w in wishes] == [
        ("beach", "dog", None),
        ("sofa", "dog", 7),
    ]
    (tmp_path / "dog.toml").write_text(file.split("```")[0])
    run = load(str(tmp_path / "dog.toml"), GenerateRun)
    assert (run.adapter, run.seeds, run.offload) == ("adapter.safetensors", (0, 1), "model")


def test_references_elsewhere_stay_where_they_are(tmp_path: Path) -> None:
    text = "prompt,entity,reference\nA dog.,dog,/pictures/dog.png\nA dog.,dog,s3://bucket/dog.png\n"
    wishes = read(tmp_path, "w.csv", text)
    assert [wish.reference for wish in wishes] == ["/pictures/dog.png", "s3://bucket/dog.png"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("w.csv", "prompt,entity\nA dog.,dog,x\n", "line 2: found 3 fields, wanted 2"),
        (
            "w.csv",
            'prompt,seed\n"A\ndog.",1\nA cat.,x\n',
            'line 4: seed: found "x", wanted a whole',
        ),
        ("w.csv", "prompt,seed\nA dog.,-1\n", "line 2: found seed -1, wanted 0 or more"),
        ("w.csv", "prompt,entity\n,dog\n", "line 2: prompt is missing"),
        ("w.csv", "prompt,enttity\nA dog.,dog\n", "unknown key enttity; did you mean entity"),
        (
            "w.csv",
            "prompt,reference\nA dog.,dog.png\n",
            "line 2: found the reference dog.png and no entity",
        ),
        ("w.csv", "prompt,name\nA dog.,../up\n", r"line 2: found the name '\.\./up'"),
        ("w.csv", "caption\nA dog.\n", "found the columns caption; wanted prompt"),
        ("w.csv", 'prompt\n"A dog.\n', "line 2: .*; wanted CSV"),
        ("w.csv", "prompt\n", "found no prompt"),
        ("w.csv", "", "found the columns none"),
        ("w.jsonl", '{"prompt": "A dog."}\n{"prompt": \n', "line 2: .*wanted a JSON object"),
        ("w.jsonl", "[1]\n", "line 1: wanted a JSON object"),
        ("w.jsonl", '"A dog."\n', "line 1: wanted a JSON object"),
        ("w.jsonl", '{"prompt": 5}\n', "line 1: prompt: found 5, wanted text"),
        ("w.toml", "[[wishes]]\nprompt = 1\n", r"\[\[wishes\]\] 1: prompt: found 1, wanted text"),
        ("w.toml", "prompt = 'A dog.'\n", r"found prompt; wanted tables \[\[wishes\]\] alone"),
        ("w.toml", "[[wishes\n", "not TOML"),
        ("w.txt", "A dog.\n", r"found no known ending, wanted \.csv, \.jsonl, \.toml"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(
    tmp_path: Path, name: str, text: str, error: str
) -> None:
    with pytest.raises(InputError, match=error) as caught:
        read(tmp_path, name, text)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_every_bad_row_counts_and_the_first_are_named(tmp_path: Path) -> None:
    rows = "".join(f"{{{number}\n" for number in range(5))
    with pytest.raises(InputError, match=r"line 1: .*line 3: .*; and 2 more rows") as caught:
        read(tmp_path, "w.jsonl", rows)
    assert "line 4" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the prompts cannot be read"):
        read_wishes(str(tmp_path / "gone.csv"))
    (tmp_path / "w.csv").write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(InputError, match="the prompts cannot be read"):
        read_wishes(str(tmp_path / "w.csv"))
