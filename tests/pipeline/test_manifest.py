"""Every row of a corpus is a row of the manifest, whatever is wrong with it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clip import Clip, clip_id
from pipeline.errors import InputError
from pipeline.manifest import Manifest, read_manifest, source_id

OPENVID = (
    "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,"
    "frame,fps,seconds"
)


ID = "13d8c99a0f6af49c"


def write(folder: Path, text: str, name: str = "clips.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def column(manifest: Manifest, name: str) -> list[Any]:
    return manifest.rows[name].to_pylist()


def paths(manifest: Manifest) -> list[Any]:
    return [clip.path for clip in manifest.clips(range(len(manifest.rows)))]


def test_a_row_of_openvid_becomes_a_clip(tmp_path: Path) -> None:
    corpus = write(
        tmp_path,
        f"{OPENVID}\n"
        '--_S9IDQPLg_14_0to118.mp4,"A man, a ""dog""\nand a cat.",5.31,2.5,,Static,118,29.97,3.9\n',
    )
    manifest = read_manifest(corpus)
    assert manifest.clips([0]) == [
        Clip(
            clip_id=clip_id("--_S9IDQPLg_14_0to118.mp4"),
            video="--_S9IDQPLg_14_0to118.mp4",
            path=str(tmp_path / "--_S9IDQPLg_14_0to118.mp4"),
            caption='A man, a "dog"\nand a cat.',
            source_id="--_S9IDQPLg",
            published={
                "aesthetic score": 5.31,
                "motion score": 2.5,
                "camera motion": "Static",
                "frame": 118.0,
                "fps": 29.97,
                "seconds": 3.9,
            },
        )
    ]


def test_columns_come_in_any_order_behind_a_mark_and_with_spaces(tmp_path: Path) -> None:
    corpus = write(tmp_path, "\ufeffscore, caption ,video\n1,hello,a.mp4\n")
    assert read_manifest(corpus).clips([0])[0].caption == "hello"


def test_names_keep_spaces_dots_letters_of_every_script_and_folders(tmp_path: Path) -> None:
    names = ["-x.mp4", "a b.mp4", "a.b.c.mp4", "köln 東京.mp4", "part one/a.mp4", "no_suffix"]
    corpus = write(tmp_path, "video,caption\n" + "".join(f"{name},c\n" for name in names))
    manifest = read_manifest(corpus)
    assert column(manifest, "video") == names
    assert paths(manifest) == [f"{tmp_path}/{name}" for name in names]
    assert column(manifest, "problem") == [None] * len(names)
    assert [clip.video for clip in manifest.clips([4, 1])] == ["part one/a.mp4", "a b.mp4"]


def test_a_row_that_cannot_be_read_is_malformed_and_stays(tmp_path: Path) -> None:
    bad = ["a.mp4", "b.mp4,one,two", ",no name", "../up.mp4,c", "x/../../up.mp4,c"]
    bad += ["/etc/passwd,c", "s3://bucket/a.mp4,c"]
    corpus = write(tmp_path, "video,caption\n" + "\n".join([*bad, "", "good.mp4,c"]))
    manifest = read_manifest(corpus)
    assert column(manifest, "problem") == ["malformed"] * len(bad) + [None]
    assert column(manifest, "video")[:2] == ["a.mp4", "b.mp4"]


def test_a_name_listed_twice_is_one_clip_and_a_duplicate_row(tmp_path: Path) -> None:
    rows = "a.mp4,c,too much\na.mp4,first\nb.mp4,c\na.mp4,second\n"
    manifest = read_manifest(write(tmp_path, f"video,caption\n{rows}"))
    assert column(manifest, "problem") == ["malformed", None, None, None]
    assert column(manifest, "duplicate") == [False, False, False, True]


def test_a_repeated_header_is_no_row(tmp_path: Path) -> None:
    corpus = write(tmp_path, "video,caption,fps\na.mp4,c,24\nvideo,caption,fps\nb.mp4,c,25\n")
    assert column(read_manifest(corpus), "fps") == [24.0, 25.0]


def test_missing_scores_are_absent(tmp_path: Path) -> None:
    scores = ["5.1", "", "nan", "NULL", " ", "6", *["7"] * 20, "n o n s e n s e"]
    lines = "".join(f"{i}.mp4,c,{score}\n" for i, score in enumerate(scores))
    manifest = read_manifest(write(tmp_path, f"video,caption,score\n{lines}"))
    assert column(manifest, "score") == [5.1, None, None, None, None, 6.0, *[7.0] * 20, None]
    assert manifest.clips([1])[0].published == {}


def test_numbers_that_are_none_are_absent(tmp_path: Path) -> None:
    lines = "".join(f"{n}.mp4,c,{word}\n" for n, word in enumerate(["-nan", "inf", "1e999", "5"]))
    manifest = read_manifest(write(tmp_path, f"video,caption,score\n{lines}"))
    assert column(manifest, "score") == [None, None, None, 5.0]


def test_a_column_of_ours_does_not_get_lost_behind_one_of_theirs(tmp_path: Path) -> None:
    corpus = write(tmp_path, "video,caption,path\na.mp4,c,elsewhere\n")
    clip = read_manifest(corpus).clips([0])[0]
    assert clip.path == f"{tmp_path}/a.mp4"
    assert clip.published == {"published path": "elsewhere"}


def test_a_very_long_caption_is_read(tmp_path: Path) -> None:
    corpus = write(tmp_path, f"video,caption\na.mp4,{'word ' * 100_000}\n")
    assert len(read_manifest(corpus).clips([0])[0].caption) == 499_999


def test_bytes_that_are_not_utf8_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes(b"video,caption\na.mp4,caf\xe9\n")
    assert read_manifest(str(tmp_path / "clips.csv")).clips([0])[0].caption == "caf\ufffd"


def test_csv_parquet_and_jsonl_say_the_same(tmp_path: Path) -> None:
    records = [
        {"video": "a.mp4", "caption": "one", "fps": 24.5, "camera motion": "Static"},
        {"video": "b.mp4", "caption": "two", "fps": None, "camera motion": "pan"},
    ]
    forms = [
        write(tmp_path, "video,caption,fps,camera motion\na.mp4,one,24.5,Static\nb.mp4,two,,pan\n"),
        write(tmp_path, "\n".join(json.dumps(r) for r in records), "clips.jsonl"),
        str(tmp_path / "clips.parquet"),
    ]
    pq.write_table(pa.Table.from_pylist(records), forms[2])
    csv, jsonl, parquet = (read_manifest(form) for form in forms)
    assert csv.clips([0, 1]) == jsonl.clips([0, 1]) == parquet.clips([0, 1])
    assert csv.id == jsonl.id == parquet.id


def test_a_line_that_is_no_object_is_a_malformed_row(tmp_path: Path) -> None:
    lines = ['{"video": "a.mp4", "caption": "c"}', "{oops", "[1]", '{"video": 3}']
    lines.append('{"video": "\\ud800.mp4", "caption": "half a pair"}')
    manifest = read_manifest(write(tmp_path, "\n".join(lines), "clips.jsonl"))
    assert column(manifest, "problem") == [None, *["malformed"] * 4]


def test_a_folder_of_videos_takes_the_captions_beside_them(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.v1.MKV", "deep/c.webm", "d.mp4", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write(tmp_path, " a bee \n", "b.txt")
    write(tmp_path, '{"caption": "a sea", "fps": 24}', "deep/c.json")
    write(tmp_path, "{broken", "d.json")
    manifest = read_manifest(str(tmp_path))
    captions = dict(zip(column(manifest, "video"), column(manifest, "caption"), strict=True))
    assert captions == {"a.v1.MKV": "", "b.mp4": "a bee", "d.mp4": "", "deep/c.webm": "a sea"}
    assert manifest.clips([3])[0].path == f"{tmp_path}/deep/c.webm"
    assert column(manifest, "fps") == [None, None, None, 24.0]


def test_a_corpus_and_its_videos_may_lie_in_object_stores(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pipe_file("/corpus/clips.csv", b"video,caption\na.mp4,c\n")
    store.pipe_file("/corpus/b.mp4", b"")
    store.pipe_file("/corpus/b.txt", b"bee")
    listed = read_manifest("memory://corpus/clips.csv")
    assert paths(listed) == ["memory://corpus/a.mp4"]
    moved = read_manifest("memory://corpus/clips.csv", "s3://bucket/videos/")
    assert paths(moved) == ["s3://bucket/videos/a.mp4"]
    folder = read_manifest("memory://corpus")
    assert paths(folder) == ["memory://corpus/b.mp4"]
    assert paths(read_manifest("memory://corpus", str(tmp_path))) == [f"{tmp_path}/b.mp4"]


def test_the_id_follows_rows_and_place_and_nothing_else(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    corpus = write(one, "video,caption,fps\na.mp4,c,24\nb.mp4,d,25\n")
    first = read_manifest(corpus).id
    shutil.copytree(one, two)
    assert read_manifest(str(two / "clips.csv")).id != first
    assert read_manifest(str(two / "clips.csv"), str(one)).id == first
    assert read_manifest(f"{one}/../one/clips.csv").id == first
    write(one, "fps,video,caption\n24,a.mp4,c\n25,b.mp4,d\n")
    assert read_manifest(corpus).id == first
    for other in ("a.mp4,c,24\nb.mp4,d,26\n", "a.mp4,c,24\nb.mp4,,25\n", "a.mp4,c,24\n"):
        write(one, f"video,caption,fps\n{other}")
        assert read_manifest(corpus).id != first


def test_the_id_of_a_corpus_never_changes(tmp_path: Path) -> None:
    """Facts are stored under it. Of 20,001 rows, as it is taken over batches of 20,000."""
    rows = "".join(f"{i}.mp4,c{i},{i / 7},pan\n" for i in range(20_000))
    corpus = write(tmp_path, f'video,caption,score,path\n{rows}short\nx.mp4,"a ""b""\n",nan,-\n')
    (tmp_path / "videos").mkdir()
    manifest = read_manifest(corpus, str(tmp_path / "videos"))
    assert replace(manifest, videos="/videos").id == ID


def large(folder: Path, video: str) -> str:
    """A corpus of 5 MB."""
    words = "word " * 500_000
    return write(folder, f"video,caption,fps\n{video},{words},24\nshort\n{video},{words},\n")


def test_a_large_corpus_is_read_once(tmp_path: Path) -> None:
    corpus = large(tmp_path, "a.mp4")
    plain = read_manifest(corpus)
    assert read_manifest(corpus, cache=str(tmp_path / "kept")).rows.equals(plain.rows)
    stat = Path(corpus).stat()
    large(tmp_path, "b.mp4")
    os.utime(corpus, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had happened
    again = read_manifest(corpus, cache=str(tmp_path / "kept"))
    assert again.rows.equals(plain.rows)
    assert again.rows.schema.metadata is None
    assert again.id == plain.id


def test_a_corpus_that_changed_or_whose_videos_moved_is_read_anew(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    corpus = large(tmp_path, "a.mp4")
    first = read_manifest(corpus, cache=kept)
    (tmp_path / "videos").mkdir()
    moved = read_manifest(corpus, str(tmp_path / "videos"), cache=kept)
    assert moved.id != first.id
    large(tmp_path, "b.mp4")
    assert column(read_manifest(corpus, cache=kept), "video") == ["b.mp4", "short", "b.mp4"]


def test_a_torn_copy_of_a_corpus_is_no_loss(tmp_path: Path) -> None:
    corpus, kept = large(tmp_path, "a.mp4"), str(tmp_path / "kept")
    first = read_manifest(corpus, cache=kept)
    (file,) = (tmp_path / "kept").iterdir()
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    assert read_manifest(corpus, cache=kept).rows.equals(first.rows)
    assert file.read_bytes() == content


def test_a_corpus_is_kept_only_where_there_is_room_and_reason(tmp_path: Path) -> None:
    small = write(tmp_path, "video,caption\na.mp4,c\n", "small.csv")
    read_manifest(small, cache=str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()
    corpus = large(tmp_path, "a.mp4")
    assert len(read_manifest(corpus, cache=f"{corpus}/no folder").rows) == 3
    assert len(read_manifest(corpus, cache="memory://kept").rows) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,caption\na.mp4,c\n", "no column `video`; found the columns: file, caption"),
        ("", "found the columns: none"),
        ("video,caption\n", "empty"),
        ("video,fps\na.mp4,24\n", "no captions; wanted a column caption"),
        ("video,caption\na.mp4,\n", "no captions"),
        ("video,caption,video\na.mp4,c,b.mp4\n", "'video' stands there twice"),
        ("video,caption\na.mp4\n", "all malformed"),
    ],
)
def test_a_corpus_of_no_use_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    corpus = write(tmp_path, text)
    with pytest.raises(InputError, match=words) as caught:
        read_manifest(corpus)
    assert corpus in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus"):
        read_manifest(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="no such corpus"):
        read_manifest("memory://nowhere/none.jsonl")
    corpus = write(tmp_path, "video,caption\na.mp4,c\n")
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(corpus, str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"ends in \.txt, wanted \.csv"):
        read_manifest(write(tmp_path, "", "clips.txt"))
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(write(tmp_path, "no parquet", "clips.parquet"))


def test_a_folder_without_videos_or_captions_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "video,caption\na.mp4,c\n")
    with pytest.raises(InputError, match=r"no videos in this folder; name the file clips\.csv"):
        read_manifest(str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 rows, no captions; wanted NAME\.txt"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize(
    ("video", "source"),
    [
        ("_-uC9nkcd0w_17_115to253.mp4", "_-uC9nkcd0w"),
        ("a_1_b_123_17_115to253.mp4", "a_1_b_123"),
        ("part_03/-0A_2GBr0cQ_20_0to145.mp4", "-0A_2GBr0cQ"),
        ("celebv___f2KtcXAxI_0.mp4", "__f2KtcXAxI"),
        ("pexels_12345.mp4", "pexels_12345"),
        ("my.holiday.mp4", "my.holiday"),
        (".mp4", ".mp4"),
    ],
)
def test_clips_of_one_source_share_its_id(video: str, source: str) -> None:
    assert source_id(video) == source
