"""A plan made real: video files, the CSV, and the truth beside them."""

from __future__ import annotations

import csv
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError

from jobs.synthetic.encode import Grain, write_tone, write_video
from jobs.synthetic.plan import ClipPlan
from jobs.synthetic.scene import Painted, Scene
from jobs.synthetic.truth import Truth, write_mask, write_truth
from pipeline.clip import clip_id

HEADER = (
    "video", "caption", "aesthetic score", "motion score", "temporal consistency score",
    "camera motion", "frame", "fps", "seconds",
)  # fmt: skip
"""OpenVid-1M's, exactly."""

LOOKED_AT_S = 1.8
"""Over how long the truth's speeds are taken: as far as segmentation looks."""


def _shown(plan: ClipPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rgb, alpha) of every frame, one at a time."""
    rate = float(plan.rate)
    for shot in plan.shots:
        painted = Painted(shot.scene, *plan.size, seconds=shot.frames / rate)
        for number in range(shot.frames):
            yield painted.frame(number / rate)


def _film(plan: ClipPlan, path: Path) -> np.ndarray:
    """Writes a healthy video; the subject's mask in frame 0, (H, W) bool."""
    width, height = plan.size
    coded = plan.size if plan.rotation % 180 == 0 else (height, width)
    grain = Grain(np.random.default_rng(plan.seed), *coded, plan.shots[0].scene.noise)
    masks: list[np.ndarray] = []

    def pictures() -> Iterator[np.ndarray]:
        for rgb, alpha in _shown(plan):
            if not masks:
                masks.append(alpha > 127)
            yield rgb

    index_first = plan.damage == "cut_file"
    write_video(path, pictures(), plan.size, plan.rate, grain, plan.rotation, index_first)
    return masks[0]


def _cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def _decodable(plan: ClipPlan, path: Path) -> int:
    """How many frames a decoder can get: known of healthy files, counted in damaged ones."""
    if plan.damage == "":
        return plan.frames
    if plan.damage != "cut_file":
        return 0
    count = 0
    with av.open(str(path)) as container, suppress(FFmpegError):
        for _ in container.decode(video=0):
            count += 1
    return count


def render_clip(plan: ClipPlan, videos: Path, masks: Path) -> Truth:
    """Writes one row's file, if it has one, and its mask; what is true of it."""
    cv2.setNumThreads(1)
    path, identity = videos / plan.video, clip_id(plan.video)
    mask: np.ndarray | None = None
    match plan.damage:
        case "missing" | "duplicate":
            pass
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("This is a note that somebody has given a video's name.\n" * 40)
        case "audio_only":
            write_tone(path, plan.frames / float(plan.rate))
        case _:
            mask = _film(plan, path)
            if plan.damage == "no_moov" or plan.damage == "cut_file":
                _cut(path, 0.5)
    has_mask = mask is not None and bool(mask.any()) and plan.damage == ""
    if mask is not None and has_mask:
        write_mask(masks / f"{identity}.png", mask)
    scene = plan.shots[0].scene
    cuts = np.cumsum([shot.frames for shot in plan.shots])[:-1]
    return Truth(
        row=plan.row,
        video=plan.video,
        clip_id=identity,
        reason=plan.reason,
        expected=plan.expected,
        tags=plan.tags,
        subject=scene.actors[0].subject.noun if scene.actors else None,
        mask=f"masks/{identity}.png" if has_mask else None,
        camera=scene.camera.kind,
        subject_speed=_speed(plan, _foot),
        camera_speed=_speed(plan, _eye),
        cuts=tuple(int(at) for at in cuts),
        decodable_frames=_decodable(plan, path),
    )


def _foot(scene: Scene, t: float, seconds: float) -> tuple[float, float]:
    return scene.actors[0].route.place(t)[:2] if scene.actors else (0.0, 0.0)


def _eye(scene: Scene, t: float, seconds: float) -> tuple[float, float]:
    return scene.camera.view(t, seconds)[:2]


def _speed(plan: ClipPlan, place: Callable[[Scene, float, float], tuple[float, float]]) -> float:
    """Mean speed over the first seconds, as a share of the frame's diagonal per second."""
    (width, height), shot = plan.size, plan.shots[0]
    seconds = shot.frames / float(plan.rate)
    times = np.linspace(0, min(LOOKED_AT_S, seconds), 19)
    points = np.array([place(shot.scene, float(t), seconds) for t in times]) * (width, height)
    length = np.hypot(*np.diff(points, axis=0).T).sum()
    return float(length / times[-1] / math.hypot(width, height))


def render(
    plans: Sequence[ClipPlan], out: Path, workers: int, done: Callable[[int], None]
) -> list[Truth]:
    """Renders a corpus into an empty or absent folder; done is told how many clips stand.

    out gets clips.csv, videos/ and truth/.
    """
    videos, truth = out / "videos", out / "truth"
    (truth / "masks").mkdir(parents=True, exist_ok=True)
    videos.mkdir(parents=True, exist_ok=True)
    heavy_first = sorted(plans, key=lambda plan: -plan.size[0] * plan.size[1] * plan.frames)
    made: list[Truth] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(render_clip, plan, videos, truth / "masks") for plan in heavy_first]
        for job in as_completed(jobs):
            made.append(job.result())
            done(len(made))
    made.sort(key=lambda row: row.row)
    with (out / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        sheet = csv.writer(file, lineterminator="\n")
        sheet.writerow(HEADER)
        sheet.writerows((plan.video, plan.caption, *plan.published) for plan in plans)
    write_truth(truth, made)
    return made
