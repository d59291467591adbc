"""The synthetic corpus is what its truth says, and the score counts what it claims to count."""

import csv
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from av.error import FFmpegError

from jobs.synthetic.plan import ClipPlan, make_plan
from jobs.synthetic.render import render, render_clip
from jobs.synthetic.scene import Painted
from jobs.synthetic.score import masks_in, score, table
from jobs.synthetic.truth import Truth, read_mask, read_truth, write_mask, write_truth
from pipeline.errors import InputError
from pipeline.mask import rle_encode

HEADER = (
    "video,caption,aesthetic score,motion score,temporal consistency score,"
    "camera motion,frame,fps,seconds"
)


def rows(reason: str, *tags: str, seed: int = 0) -> list[ClipPlan]:
    plans = make_plan(seed)
    return [plan for plan in plans if plan.reason == reason and set(tags) <= set(plan.tags)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """The broken rows and the small clips that are turned by metadata."""
    folder = tmp_path_factory.mktemp("made")
    damaged = [plan for plan in make_plan(0) if plan.damage]
    turned = [plan for plan in rows("kept", "rotated") if max(plan.size) < 1000]
    return folder, {
        plan.damage or f"turned by {plan.rotation}": render_clip(plan, folder, folder)
        for plan in damaged + turned
    }


def decoded(path: Path) -> int:
    """How many frames a decoder gets; 0 when the container cannot be opened."""
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except (FFmpegError, IndexError):
        return count
    return count


def test_a_corpus_has_sixty_rows_and_half_of_them_are_kept():
    plans = make_plan(3)
    assert len(plans) == 60
    assert sum(plan.expected == ("kept",) for plan in plans) == 30
    assert [plan.row for plan in plans] == list(range(60))


def test_about_25_clips_are_full_hd_in_both_directions():
    full = [plan for plan in make_plan(0) if min(plan.size) == 1080 and not plan.damage]
    assert len(full) == 25
    assert {plan.size for plan in full} == {(1920, 1080), (1080, 1920)}


def test_at_least_40_subjects_differ():
    scenes = [shot.scene for plan in make_plan(0) for shot in plan.shots]
    looks = {
        (actor.subject.noun, actor.subject.pattern, actor.subject.first, actor.subject.second)
        for scene in scenes
        for actor in scene.actors[:1]
    }
    assert len(looks) >= 40
    assert len({look[0] for look in looks}) >= 25


def test_another_seed_is_another_corpus():
    first, second = make_plan(0), make_plan(1)
    names = {plan.video for plan in first} & {plan.video for plan in second}
    assert names == set()
    assert [plan.caption for plan in first] != [plan.caption for plan in second]


def test_every_oddity_of_a_real_corpus_is_there():
    plans = make_plan(0)
    names = [plan.video for plan in plans]
    assert any(name.startswith("-") for name in names)
    assert any(" " in name for name in names)
    assert any(name.count(".") > 2 for name in names)
    assert any(not name.isascii() for name in names)
    assert {Fraction(25, 2), Fraction(24_000, 1001), Fraction(60)} <= {p.rate for p in plans}
    assert {plan.rotation for plan in plans} == {0, 90, 180, 270}
    assert {plan.damage for plan in plans} == {
        "", "empty", "text", "no_moov", "cut_file", "audio_only", "missing", "duplicate",
    }  # fmt: skip
    assert all(2 <= plan.frames / plan.rate <= 7 for plan in plans)


def test_a_caption_says_what_is_in_the_clip():
    for plan in make_plan(0):
        scene = plan.shots[0].scene
        if plan.caption and scene.actors:
            assert scene.actors[0].subject.noun[:-1] in plan.caption
            assert ("two " in plan.caption.lower()) == (len(scene.actors) == 2)
            assert ("cluttered" in plan.caption) == (scene.clutter > 0)


def test_the_later_of_two_equal_rows_is_the_repetition():
    for seed in range(6):
        plans = make_plan(seed)
        twice = [p for p in plans if sum(q.video == p.video for q in plans) == 2]
        assert [p.reason for p in twice] == ["kept", "listed_twice"]


def test_a_render_is_a_csv_of_openvid_and_its_truth(tmp_path: Path):
    plans = rows("too_small")
    made = render(plans, tmp_path, workers=1, done=lambda count: None)
    lines = (tmp_path / "clips.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == HEADER
    sheet = list(csv.DictReader(lines))
    assert [row["video"] for row in sheet] == [plan.video for plan in plans]
    truth = read_truth(tmp_path)
    assert [row.video for row in truth] == [row.video for row in made]
    for row, written in zip(truth, sheet, strict=True):
        assert decoded(tmp_path / "videos" / row.video) == int(written["frame"])
        mask = read_mask(tmp_path, row)
        assert mask is not None
        assert 0.02 < mask.mean() < 0.5


def test_a_seed_gives_the_same_bytes(tmp_path: Path):
    (plan,) = rows("too_small", "portrait")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        render_clip(plan, tmp_path / name, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("degrees", [180, 270])
def test_a_turned_clip_is_upright_only_with_its_metadata(made, degrees: int):
    folder, truth = made
    row = truth[f"turned by {degrees}"]
    mask = cv2.imread(str(folder / f"{row.clip_id}.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    with av.open(str(folder / row.video)) as container:
        coded = next(container.decode(video=0))
        assert coded.rotation % 360 == -degrees % 360
    (plan,) = [plan for plan in make_plan(0) if plan.video == row.video]
    upright = Painted(plan.shots[0].scene, *plan.size, seconds=1.0).frame(0.0)[0]
    assert mask.shape == upright.shape[:2]
    back = np.rot90(coded.to_ndarray(format="rgb24"), -degrees // 90)
    assert back.shape == upright.shape
    assert np.abs(back.astype(int) - upright).mean() < 8


def test_a_cut_file_declares_more_frames_than_it_has(made):
    folder, truth = made
    path = folder / truth["cut_file"].video
    with av.open(str(path)) as container:
        declared = container.streams.video[0].frames
    assert 0 < decoded(path) < 0.95 * declared
    assert truth["cut_file"].decodable_frames == decoded(path)


@pytest.mark.parametrize("damage", ["empty", "text", "no_moov", "audio_only"])
def test_a_broken_file_is_there_and_has_no_pictures(made, damage: str):
    folder, truth = made
    assert (folder / truth[damage].video).exists()
    assert decoded(folder / truth[damage].video) == 0


def test_a_missing_file_is_missing_and_a_silent_one_has_sound(made):
    folder, truth = made
    assert not (folder / truth["missing"].video).exists()
    with av.open(str(folder / truth["audio_only"].video)) as container:
        assert len(container.streams.audio) == 1


@pytest.mark.parametrize(
    ("reason", "sides"), [("at_border", 2), ("too_short", 0), ("no_caption", 0)]
)
def test_a_subject_touches_as_many_sides_as_it_should(reason: str, sides: int):
    plan = rows(reason)[0]
    alpha = Painted(plan.shots[0].scene, *plan.size, seconds=4.0).frame(0.0)[1]
    edges = (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
    assert sum(bool(edge.any()) for edge in edges) == sides


def test_a_leaving_subject_is_gone_after_1_8_s():
    (plan,) = rows("leaving")
    painted = Painted(plan.shots[0].scene, *plan.size, seconds=4.0)
    assert painted.frame(0.0)[1].any()
    assert not painted.frame(1.8)[1].any()


@pytest.mark.parametrize("reason", ["cut_early", "cut_late", "cut_middle"])
def test_colours_change_at_a_cut(reason: str):
    (plan,) = rows(reason)
    seconds = plan.frames / float(plan.rate)
    pictures = [Painted(s.scene, *plan.size, seconds=seconds).frame(0.0)[0] for s in plan.shots]
    counts = [np.histogramdd(p.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0] for p in pictures]
    assert np.minimum(*counts).sum() / counts[0].sum() < 0.5
    at = plan.shots[0].frames / float(plan.rate)
    assert {"cut_early": at < 0.5, "cut_late": seconds - at < 0.4, "cut_middle": True}[reason]


TRUTH_MASK = np.zeros((20, 30), bool)
TRUTH_MASK[5:15, 5:15] = True


def known(folder: Path) -> list[Truth]:
    """Two rows to be kept with one mask each, two static ones, one empty file."""
    kinds = [("kept", "kept")] * 2 + [("static", "rejected:motion")] * 2
    kinds.append(("empty", "failed:probe"))
    (folder / "truth" / "masks").mkdir(parents=True)
    truth = []
    for number, (reason, expected) in enumerate(kinds):
        mask = f"masks/{number}.png" if reason == "kept" else None
        if mask is not None:
            write_mask(folder / "truth" / mask, TRUTH_MASK)
        truth.append(
            Truth(
                number, f"{number}.mp4", str(number), reason, (expected,), (), "vase", mask,
                "static", 0.1, 0.0, (), 90,
            )
        )  # fmt: skip
    write_truth(folder / "truth", truth)
    return truth


def said(*verdicts: str) -> pa.Table:
    parts = [verdict.partition(":") for verdict in verdicts]
    return pa.table(
        {
            "video": [f"{number}.mp4" for number in range(len(parts))],
            "verdict": [verdict for verdict, _, _ in parts],
            "stage": [stage or None for _, _, stage in parts],
        }
    )


def facts(**masks: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "clip_id": list(masks),
            "mask_rle": [rle_encode(mask) for mask in masks.values()],
            "mask_width": [mask.shape[1] for mask in masks.values()],
            "mask_height": [mask.shape[0] for mask in masks.values()],
        }
    )


RIGHT = ("kept", "kept", "rejected:motion", "rejected:motion", "failed:probe")


def test_a_perfect_run_scores_one(tmp_path: Path):
    known(tmp_path)
    one = score(tmp_path, said(*RIGHT), masks_in(facts(**{"0": TRUTH_MASK, "1": TRUTH_MASK})))
    assert (one.macro_recall, one.kept_share, one.mean_iou) == (1.0, 1.0, 1.0)
    assert one.passed
    assert one.mistakes == ()


def test_a_missing_mask_counts_as_zero(tmp_path: Path):
    known(tmp_path)
    half = TRUTH_MASK.copy()
    half[5:10] = False
    one = score(tmp_path, said(*RIGHT), masks_in(facts(**{"0": half})))
    assert one.mean_iou == pytest.approx(0.25)
    assert not one.passed


def test_the_right_verdict_of_the_wrong_stage_is_a_miss(tmp_path: Path):
    known(tmp_path)
    verdicts = said("kept", "rejected:segment", "rejected:segment", *RIGHT[3:])
    one = score(tmp_path, verdicts, masks_in(facts()))
    assert one.recall == {"static": 0.5, "empty": 1.0}
    assert one.macro_recall == pytest.approx(0.75)
    assert one.kept_share == 0.5
    assert "2.mp4 (static): wanted rejected:motion, found rejected:segment" in table({"run": one})


def test_a_run_of_another_corpus_is_refused(tmp_path: Path):
    known(tmp_path)
    with pytest.raises(InputError, match="name the corpus of that run"):
        score(tmp_path, said(*RIGHT[:3]), masks_in(facts()))
