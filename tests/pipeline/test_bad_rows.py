"""Every bad row is listed with its line and what is wrong with it."""

from pathlib import Path

from pipeline.bad_rows import as_csv, bad_rows
from pipeline.manifest import read_manifest

TEXT = """\
video,caption,score,rare
a.mp4,"two
lines",5,
b.mp4,,6,
video,caption,score,rare
a.mp4,again,7,x

q,w
../c.mp4,k,4,
d.mp4,last one,,
"""


def test_rows_are_listed_by_their_lines(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(TEXT)
    manifest = read_manifest(str(tmp_path / "clips.csv"))
    bad = bad_rows(manifest.rows, manifest.published.names)
    assert as_csv(bad).decode().splitlines() == [
        '"line","video","problem","detail"',
        '4,"b.mp4","no caption",',
        '6,"a.mp4","listed twice",',
        '8,"q","malformed","2 fields, wanted 4"',
        '9,"../c.mp4","malformed","the name leaves the folder of the videos"',
        '10,"d.mp4","no score",',
    ]


def test_a_corpus_without_fault_has_no_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,c\n")
    assert len(bad_rows(read_manifest(str(tmp_path / "clips.csv")).rows, [])) == 0
