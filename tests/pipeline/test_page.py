"""The page shows every clip under its reason, and nobody's words become markup."""

from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.report.page import FunnelRow, write_page
from pipeline.report.sheet import SheetRow

PICTURE = np.zeros((40, 60, 3), np.uint8)
FUNNEL = [FunnelRow("probe", 6, rejected=3, failed=1), FunnelRow("motion", 4, rejected=2)]


class Reader(HTMLParser):
    """What a browser would make of the page: tags, attributes, the text outside of <style>."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words += "" if self.tags[-1:] == ["style"] else data


def written(folder, rows, facts=None):
    write_page("A run", FUNNEL, rows, facts or {}, str(folder))
    return (folder / "index.html").read_text()


def row(verdict="kept", caption="a thing", title="a.mp4", pictures=(PICTURE,), label="frame 0"):
    return SheetRow(title, verdict, caption, pictures, [label] * len(pictures), {"size": "60x40"})


@pytest.mark.parametrize(
    "words",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='alert(1)",
        "</style></title><base href=//elsewhere>",
        "&lt;script&gt; <!-- ",
    ],
)
def test_words_stay_words_wherever_they_stand(tmp_path, words):
    hostile = row(f"rejected: {words}", words, words, label=words)
    reader = Reader(written(tmp_path, [hostile], {words: words}))
    plain = Reader(written(tmp_path, [row("rejected: x")], {"a": "b"}))
    assert reader.tags == plain.tags
    assert [name for name, _ in reader.attributes] == [name for name, _ in plain.attributes]
    assert " ".join(words.split()) in reader.words


def test_the_page_needs_no_network_and_runs_no_script(tmp_path):
    page = written(tmp_path, [row()])
    reader = Reader(page)
    sources = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert len(sources) == 1
    assert "script" not in reader.tags
    assert "default-src 'none'" in page


def test_clips_stand_under_their_outcome_and_reason(tmp_path):
    rows = [
        row("failed: probe unreadable", title="broken.mp4", pictures=()),
        row("rejected: motion.top5 0.006 >= 0.015", title="still.mp4"),
        row("rejected: motion.top5 0.004 >= 0.015", title="stone.mp4"),
        row("kept", title="good.mp4"),
        row("rejected: appearance.cut 0.2 >= 0.6", title="cut.mp4"),
    ]
    words = Reader(written(tmp_path, rows)).words
    order = ["Kept", "good.mp4", "Rejected", "appearance.cut", "cut.mp4", "motion.top5"]
    order += ["still.mp4", "stone.mp4", "Failed", "broken.mp4"]
    places = [words.index(word) for word in order]
    assert places == sorted(places)


def test_the_funnel_says_what_every_step_took_out(tmp_path):
    words = " ".join(Reader(written(tmp_path, [])).words.split())
    assert "probe6310" in words
    assert "motion4200" in words


def test_long_captions_are_cut_and_other_scripts_are_kept(tmp_path):
    page = written(tmp_path, [row(caption="x" * 50_000), row(caption="سلام 漢字")])
    assert "x" * 900 in page
    assert "x" * 1100 not in page
    assert "سلام 漢字" in page


def test_a_name_that_is_no_utf8_does_not_stop_the_page(tmp_path):
    assert "\ufffd.mp4" in written(tmp_path, [row(title="\udcff.mp4")])


def test_an_empty_run_has_a_page_too(tmp_path):
    write_page("Nothing yet", [], [], {}, str(tmp_path))
    assert "Nothing yet" in (tmp_path / "index.html").read_text()
