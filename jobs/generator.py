"""From wishes to videos: the encoders, the transformer and the sampler of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from jobs.generate_settings import GenerateRun
from model.adapted import Adapted
from model.adapter_file import load_adapter, read_header
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.pipeline import CustomVideoXPipeline, switched
from model.sampling import VERSION as SAMPLER_VERSION
from model.sampling import Step
from model.weights import Base, identify_base, load_base
from pipeline.errors import InputError
from pipeline.generated import Generated
from pipeline.reference import VERSION as REFERENCE_VERSION
from pipeline.video import VideoSettings
from stages.encoders import LatentsSettings, open_codec, open_text
from stages.resize import RULE, resized

WITH, WITHOUT = "reference", "none"
"""The groups of videos: made with the reference, and from the prompt alone."""


_DECIDES = ("num_frames", "tab", "erae", "base_dtype", "sampling", "threads")
"""Settings that the pixels depend on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left. base: hub name or folder; adapter: its file, None for the base alone.

    made_with: fingerprints of the codec and the text encoder of its latents.
    """

    base: str
    adapter: Path | None
    made_with: Mapping[str, str]
    null_text: Literal["empty", "zeros"]
    snr_shift: float


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
        trained: Trained,
        settings: GenerateRun,
        latents: LatentsSettings,
        text_place: str,
        video: VideoSettings,
    ) -> None:
        """Raises ModelError or InputError when something is not there or does not fit together."""
        self._settings, self._video = settings, video
        if settings.offload != "none":  # they come to the GPU when they work
            latents = replace(latents, placement=replace(latents.placement, device="cpu"))
        codec, text = open_codec(latents), open_text(latents, text_place)
        encoders = {"codec": codec.fingerprint(), "text": text.fingerprint()}
        _check_encoders(trained, encoders)
        base_id = identify_base(trained.base)
        self._pipe = CustomVideoXPipeline(
            _model(trained, settings, latents, base_id),
            codec,
            text,
            null_text=trained.null_text,
            snr_shift=trained.snr_shift,
            size=(latents.width, latents.height),
        )
        self._shape = self._pipe.latent_shape(settings.num_frames, self._pipe.size)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _place(self._pipe, settings.offload, device)
        self._made_with = {
            "base": base_id.fingerprint,
            "adapter": None if trained.adapter is None else _sha256(trained.adapter.read_bytes()),
            **encoders,
            "settings": {
                name: value for name, value in asdict(settings).items() if name in _DECIDES
            },
            "snr_shift": trained.snr_shift,
            "size": [latents.width, latents.height],
            "device": device,
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
            fps=self._video.fps,
            num_frames=self._settings.num_frames,
            made_of=made_of,
            seen=[],
            negative_prompt=wish.negative_prompt,
            crf=self._video.crf,
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


def _model(
    trained: Trained, settings: GenerateRun, latents: LatentsSettings, base_id: Base
) -> Adapted:
    """On the CPU."""
    config = None
    if trained.adapter is not None:
        header = read_header(trained.adapter)
        _check_pictures(trained.adapter, header.made_with, latents)
        config = switched(header.config, settings.tab, settings.erae)
    base = load_base(
        trained.base, torch.float32 if settings.base_dtype == "f32" else torch.bfloat16
    )
    if settings.base_dtype == "fp8_storage":
        store_in_fp8(base)
    model = open_model(base, config)
    if trained.adapter is not None:
        load_adapter(model, trained.adapter, base_id)
    return model


def _place(pipe: CustomVideoXPipeline, offload: str, device: str) -> None:
    if device == "cpu" or offload == "none":
        pipe.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device)
    else:
        pipe.enable_sequential_cpu_offload(device)


def _check_encoders(trained: Trained, found: Mapping[str, str]) -> None:
    for what, here in found.items():
        if trained.made_with[what] != here:
            raise InputError(
                f"{trained.adapter or trained.base}: was trained on latents of the {what} "
                f"{trained.made_with[what]}, this run's is {here}; name that one under [latents] "
                "of the run file, or train again"
            )


def _check_pictures(file: Path, made_with: Mapping[str, str], latents: LatentsSettings) -> None:
    """An adapter that does not say what its pictures were is taken for what it says."""
    size = tuple(made_with.get(side) for side in ("width", "height"))
    if None not in size and size != (str(latents.width), str(latents.height)):
        raise InputError(
            f"{file}: was trained at {'x'.join(map(str, size))}, this run's latents are "
            f"{latents.width}x{latents.height}; set that size under [latents] of the run file, or "
            "train again"
        )
    rule = made_with.get("reference_version", str(REFERENCE_VERSION))
    if rule != str(REFERENCE_VERSION):
        raise InputError(
            f"{file}: was trained on reference pictures of version {rule}, they are made by "
            f"version {REFERENCE_VERSION} now; make samples and latents again and train on those, "
            "or use the code that it was trained with"
        )
    resize = made_with.get("resize", RULE)
    if resize != RULE:
        raise InputError(
            f"{file}: was trained on pictures resized by {resize}, the rule is {RULE} now; make "
            "latents again and train on those, or use the code that it was trained with"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
