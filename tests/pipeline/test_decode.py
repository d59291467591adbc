"""Reading the frames of a clip."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.decode import MAX_BYTES, DecodeError, read_frames
from pipeline.frames import Every, FrameRequest, Indices, Spaced, Times

EVERY = FrameRequest(Every())


def stripes(count, height=48, width=64):
    """Frames that tell their number by their grey level, which scaling may miss by 2."""
    return [np.full((height, width, 3), 4 * n + 2, np.uint8) for n in range(count)]


def levels(frames):
    return (frames.images.mean(axis=(1, 2, 3)) // 4).astype(int).tolist()


def code(path, requests=(EVERY,)):
    with pytest.raises(DecodeError) as caught:
        read_frames(str(path), requests)
    assert "\n" not in caught.value.message
    return caught.value.code


def test_every_request_gets_its_own_frames_at_its_own_size(render, tmp_path):
    path = render(tmp_path / "a.mp4", stripes(50))
    every, spaced, picked = read_frames(
        str(path),
        [
            FrameRequest(Every(), area_px=16 * 12),
            FrameRequest(Spaced(0.5)),
            FrameRequest(Indices((3, 40, 900)), area_px=32 * 24),
        ],
    )
    assert levels(every) == list(range(50))
    assert every.images.shape == (50, 12, 16, 3)
    assert levels(spaced) == [0, 12, 24, 36, 48, 49] == list(spaced.numbers)
    assert spaced.images.shape[1:] == (48, 64, 3)
    assert levels(picked) == [3, 40]
    assert picked.images.shape[1:] == (24, 32, 3)
    assert (picked.num_frames, picked.fps, picked.width, picked.height) == (50, 24, 64, 48)


def test_sizes_are_kept_apart_where_no_request_wants_every_frame(render, tmp_path):
    path = render(tmp_path / "a.mp4", stripes(30))
    small, native = read_frames(
        str(path), [FrameRequest(Spaced(0.5), area_px=16 * 12), FrameRequest(Indices((1, 12, 20)))]
    )
    assert small.images.shape == (4, 12, 16, 3)
    assert native.images.shape == (3, 48, 64, 3)
    assert (levels(small), levels(native)) == ([0, 12, 24, 29], [1, 12, 20])


@pytest.mark.parametrize("fps", [Fraction(25, 2), Fraction(24000, 1001), Fraction(60)])
def test_times_follow_the_frame_rate(render, tmp_path, fps):
    path = render(tmp_path / "a.mp4", stripes(40), fps)
    (frames,) = read_frames(str(path), [FrameRequest(Times((0.0, 0.25, 9.0)))])
    assert frames.fps == pytest.approx(float(fps))
    assert levels(frames) == [0, round(0.25 * fps)]


def test_a_second_frame_can_follow_each_spaced_one(render, tmp_path):
    path = render(tmp_path / "a.mp4", stripes(30))
    (frames,) = read_frames(str(path), [FrameRequest(Spaced(0.5, then_s=0.04))])
    assert levels(frames) == [0, 1, 12, 13, 24, 25, 29]


def test_the_middle_frame_can_come_with_the_spaced_ones(render, tmp_path):
    path = render(tmp_path / "a.mp4", stripes(30))
    spaced = FrameRequest(Spaced(0.5, middle=True))
    for requests in ([spaced], [spaced, EVERY]):
        (frames, *_) = read_frames(str(path), requests)
        assert levels(frames) == list(frames.numbers) == [0, 12, 14, 24, 29]


def test_no_request_reads_nothing(render, tmp_path):
    assert read_frames(str(render(tmp_path / "a.mp4", stripes(3))), []) == []


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("area_px", [None, 1000])
def test_pictures_stand_upright(render, tmp_path, rotation, area_px):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = (255, 0, 0)
    stored[24:, 32:] = (0, 0, 255)
    path = render(tmp_path / "a.mp4", [stored] * 3, rotation=rotation)
    (frames,) = read_frames(str(path), [FrameRequest(Every(), area_px)])
    upright = np.rot90(stored, rotation // 90)
    assert (frames.height, frames.width) == upright.shape[:2]
    height, width = frames.images.shape[1:3]
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        seen = frames.images[0, y * height // 4, x * width // 4].astype(int)
        meant = upright[y * upright.shape[0] // 4, x * upright.shape[1] // 4]
        assert abs(seen - meant).max() < 16


def test_an_odd_size_is_read_like_pyav_reads_it(tmp_path, texture):
    image = texture(47, 61)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 61, 47, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (frames,) = read_frames(str(tmp_path / "a.mkv"), [EVERY])
    np.testing.assert_array_equal(frames.images[0], image)


def test_names_that_look_like_urls_or_options_are_files(render, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "-y.mp4", "Жук 1 .x.mp4"):
        render(tmp_path / name, stripes(3))
        assert len(read_frames(name, [EVERY])[0].numbers) == 3


def test_what_is_no_video_says_why(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a text\n" * 99)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hosts\n")
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 44100), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert code(tmp_path / "none.mp4") == "missing"
    assert code(tmp_path / "empty.mp4") == "empty"
    assert code(tmp_path / "text.mp4") == "unreadable"
    assert code(tmp_path / "list.mp4") == "unreadable"
    assert code(tmp_path / "audio.mp4") == "no_video"
    assert code(tmp_path) == "unreadable"


def test_a_truncated_file_is_unreadable_or_partial(render, tmp_path, texture):
    moving = [np.roll(texture(96, 128), 3 * n, axis=1) for n in range(40)]
    last = render(tmp_path / "moov_last.mp4", moving)
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert code(last) == "unreadable"
    first = render(tmp_path / "moov_first.mp4", moving, faststart=True)
    first.write_bytes(first.read_bytes()[: first.stat().st_size * 2 // 3])
    assert code(first) == "partial"


def test_frames_that_cannot_be_decoded_make_it_partial(render, tmp_path, texture):
    moving = [np.roll(texture(96, 128), 3 * n, axis=1) for n in range(40)]
    path = render(tmp_path / "a.mp4", moving, faststart=True)
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(len(whole) // 4)
    path.write_bytes(whole[: len(whole) // 2] + noise + whole[len(whole) * 3 // 4 :])
    # Not asserted: what of its beginning decord still gives depends on how far ahead it had got.
    assert code(path) == "partial"


def test_a_matroska_file_that_breaks_off_is_partial_where_its_end_is_wanted(tmp_path, texture):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.gop_size = 1
        for n in range(48):
            image = np.roll(texture(96, 128), 3 * n, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code(path) == "partial"
    (start,) = read_frames(str(path), [FrameRequest(Times((0.0, 0.5)))])
    assert start.numbers == (0, 12)


def test_a_request_beyond_the_bound_of_memory_is_refused(render, tmp_path):
    path = render(tmp_path / "a.mp4", [np.zeros((1080, 1920, 3), np.uint8)] * 2)
    assert code(path, [EVERY] * (MAX_BYTES // (2 * 1080 * 1920 * 3) + 1)) == "too_large"
