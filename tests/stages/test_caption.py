"""Captions by a vision-language model: what it is shown, and what becomes of its words."""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest
from chat_server import MODEL, Body, ChatServer, Status, serving
from PIL import Image

from pipeline.clip import Clip, Failed, Measurement, Outcome, caption_of
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.stage import fingerprints
from stages.caption import PROMPT_VERSION, SYSTEM, Caption, CaptionSettings
from stages.networks.server import ServerSettings

WINDOW = range(3, 76, 3)


def clip(caption: str = "", name: str = "a.mp4") -> Clip:
    return Clip(name, name, name, caption, "")


def frames(shade: int) -> Frames:
    images = np.full((3, 90, 160, 3), 0, np.uint8)
    images[0, :, :, 0] = shade
    return Frames(images, (0, 39, 75), 24.0, 100, 160, 90)


def written(server: ChatServer, clips: list[Clip], seen: list[Frames | None]) -> list[Outcome]:
    settings = CaptionSettings("server", MODEL, ServerSettings(server.url, timeout_s=20))
    stage = Caption(settings, WINDOW)
    stage.setup()
    return list(stage.measure(clips, seen, [{}] * len(clips)))


def pictures(body: Body) -> list[np.ndarray]:
    """What the model is shown, decoded."""
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"][:-1]]
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
    files = [io.BytesIO(base64.b64decode(url.partition(",")[2])) for url in urls]
    return [np.asarray(Image.open(file)) for file in files]


def test_every_clip_is_described_from_its_own_frames():
    def reply(body: Body) -> str:
        first, second, third = pictures(body)
        assert first.shape == second.shape == third.shape == (90, 160, 3)
        return f"The video shows shade {first[0, 0, 0]}."

    with serving(reply) as server:
        outcomes = written(server, [clip(), clip()], [frames(10), frames(200)])
    shades = [int(o.values["raw"].split()[-1][:-1]) for o in outcomes if isinstance(o, Measurement)]
    assert np.allclose(shades, [10, 200], atol=3)
    for outcome in outcomes:
        assert isinstance(outcome, Measurement)
        assert set(outcome.values) == set(Caption.columns.names)
        assert outcome.values["caption_source"] == "model"
        assert (outcome.values["model"], outcome.values["truncated"]) == (MODEL, False)


def test_a_caption_of_the_corpus_is_kept_and_no_model_asked():
    with serving(lambda body: "The video shows a ball.") as server:
        kept, new = written(server, [clip("A dog."), clip()], [frames(1), frames(2)])
    assert isinstance(kept, Measurement)
    assert isinstance(new, Measurement)
    assert (kept.values["caption"], kept.values["caption_source"]) == ("A dog.", "corpus")
    assert kept.values["model"] is None
    assert len(server.asked) == 1
    assert caption_of(clip("A dog."), {"caption": kept.values}) == "A dog."
    assert caption_of(clip(), {"caption": new.values}) == "The video shows a ball."
    assert caption_of(clip("A dog."), {}) == "A dog."


def test_words_become_one_line_and_the_raw_text_stays():
    raw = "  The video\n shows\x07 a\tred ball. "
    with serving(lambda body: raw) as server:
        (outcome,) = written(server, [clip()], [frames(1)])
    assert isinstance(outcome, Measurement)
    assert outcome.values["caption"] == "The video shows a red ball."
    assert outcome.values["raw"] == raw


@pytest.mark.parametrize(("finish", "text"), [("length", "The video sho"), ("stop", "ball " * 999)])
def test_a_caption_that_was_cut_says_so(finish: str, text: str):
    with serving(lambda body: text, finish=finish) as server:
        (outcome,) = written(server, [clip()], [frames(1)])
    assert isinstance(outcome, Measurement)
    assert outcome.values["truncated"] is True
    assert len(outcome.values["caption"]) <= 2_000


def test_half_a_letter_in_a_caption_can_be_stored():
    with serving(lambda body: "The video shows a \ud83d fox.") as server:
        (outcome,) = written(server, [clip()], [frames(1)])
    assert isinstance(outcome, Measurement)
    table = pa.Table.from_pylist([dict(outcome.values)], schema=Caption.columns)
    assert table["caption"].to_pylist() == ["The video shows a ? fox."]


def test_a_clip_that_cannot_be_described_fails_alone():
    def reply(body: Body) -> str | Status:
        shade = int(pictures(body)[0][0, 0, 0])
        return {0: "The video shows a ball.", 100: " \n", 200: Status(400)}[round(shade, -2)]

    with serving(reply) as server:
        seen = [frames(0), frames(100), frames(200), None]
        outcomes = written(server, [clip()] * 4, seen)
    codes = [o.code if isinstance(o, Failed) else "" for o in outcomes]
    assert codes == ["", "bad_answer", "refused", "no_frames"]


def test_a_server_that_is_not_there_is_named_by_its_setting():
    with pytest.raises(InputError, match=r"caption\.server\.base_url"):
        Caption(CaptionSettings("server"), WINDOW).check()


def test_another_model_writes_other_captions_another_address_does_not():
    settings = [
        CaptionSettings("server", "a", ServerSettings("http://here/v1")),
        CaptionSettings("server", "a", ServerSettings("http://there/v1")),
        CaptionSettings("server", "b", ServerSettings("http://here/v1")),
    ]
    here, there, other = (fingerprints([Caption(s, WINDOW)])["caption"] for s in settings)
    assert here == there != other
    assert here != fingerprints([Caption(settings[0], range(5, 50))])["caption"]


def test_a_new_prompt_is_a_new_version():
    assert (PROMPT_VERSION, hashlib.sha256(SYSTEM.encode()).hexdigest()[:8]) == (1, "f3323bd1")
