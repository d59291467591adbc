"""From wishes to videos: the encoders, the transformer and the sampler of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from jobs.generate_settings import GenerateRun
from jobs.trained import Weights
from model.pipeline import CustomVideoXPipeline
from model.sampling import VERSION as SAMPLER_VERSION
from model.sampling import Step
from pipeline.generated import Generated
from stages.resize import resized

WITH, WITHOUT = "reference", "none"
"""The groups of videos: made with the reference, and from the prompt alone."""


_DECIDES = ("num_frames", "tab", "erae", "base_dtype", "sampling", "threads")
"""Settings that the pixels depend on."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be seen. subject: a name for files; picture: (H, W, 3) uint8 RGB, on white.

    Without a picture it is the base's own video. seeds: one video for each.
    """

    subject: str
    prompt: str
    entity: str
    picture: np.ndarray | None
    negative_prompt: str
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Draft:
    """A video to be made: its record, still without what sampling sees, and its wish."""

    record: Generated
    wish: Wish


class Generator:
    """Loaded once, for all videos of a run."""

    def __init__(
        self,
        pipe: CustomVideoXPipeline,
        weights: Weights,
        settings: GenerateRun,
        fps: int,
        crf: int,
    ) -> None:
        """pipe: where it is to work. fps, crf: of the mp4. Raises ModelError for bad num_frames."""
        self._pipe, self._settings, self._fps, self._crf = pipe, settings, fps, crf
        self._shape = pipe.latent_shape(settings.num_frames, pipe.size)
        self._made_with = {
            **asdict(weights),
            "settings": {
                name: value for name, value in asdict(settings).items() if name in _DECIDES
            },
            "size": list(pipe.size),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "sampler": SAMPLER_VERSION,
            "torch": torch.__version__,
        }

    @property
    def takes_references(self) -> bool:
        """Whether there is an adapter."""
        return self._pipe.model.adapter is not None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of patches of each video."""
        frames, _, height, width = self._shape
        patch = self._pipe.model.transformer.config["patch_size"]
        return frames, height // patch, width // patch

    def draft(self, wish: Wish, seed: int, group: str) -> Draft:
        """What the video will be called. Raises ModelError when the prompt lacks the entity."""
        if wish.entity:
            self._pipe.text_encoder.spans(wish.prompt, wish.entity)
        picture = wish.picture if group == WITH else None
        made_of: dict[str, Any] = {
            **self._made_with,
            "prompt": wish.prompt,
            "entity": wish.entity,
            "negative_prompt": wish.negative_prompt,
            "reference": None if picture is None else _sha256(picture.tobytes()),
            "seed": seed,
        }
        address = _sha256(json.dumps(made_of, sort_keys=True).encode())[:12]
        record = Generated(
            name=f"{wish.subject}-{seed}-{group}-{address}",
            group=group,
            subject=wish.subject,
            prompt=wish.prompt,
            entity=wish.entity,
            seed=seed,
            fps=self._fps,
            num_frames=self._settings.num_frames,
            made_of=made_of,
            seen=[],
            negative_prompt=wish.negative_prompt,
            crf=self._crf,
        )
        return Draft(record, wish)

    def keep_prompts(self, drafts: Sequence[Draft]) -> None:
        """Encodes all prompts of these, and lets the text encoder go."""
        wishes = [draft.wish for draft in drafts]
        if wishes:
            said = [prompt for wish in wishes for prompt in (wish.prompt, wish.negative_prompt)]
            self._pipe.keep_prompts(said)

    def make(
        self, draft: Draft, progress: Callable[[Step], None]
    ) -> tuple[np.ndarray, Sequence[Step]]:
        """(N, H, W, 3) uint8 RGB, and what was seen on the way."""
        wish, sampling, reference = draft.wish, self._settings.sampling, None
        if draft.record.group == WITH and wish.picture is not None:
            reference = resized(wish.picture[None], self._pipe.size)[0]
        videos = self._pipe(
            wish.prompt,
            reference,
            wish.entity or None,
            negative_prompt=wish.negative_prompt,
            seed=draft.record.seed,
            num_frames=self._settings.num_frames,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.text_guidance,
            reference_guidance_scale=sampling.reference_guidance,
            progress=progress,
        )
        return videos.pixels[0], videos.steps[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
