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
from torch import Tensor

from jobs.generate_settings import GenerateRun
from model.adapter_file import load_adapter, read_header
from model.bias import entity_mask
from model.config import AdapterConfig
from model.extra_frame import open_model
from model.sampling import Conditions, Step, initial_noise, sample
from model.weights import identify_base, load_base
from pipeline.errors import InputError
from pipeline.generated import Generated
from pipeline.reference import VERSION as REFERENCE_VERSION
from stages.encoders import LatentsSettings, encode_pictures, open_codec, open_text

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
    """What is to be seen. subject: a name for files; picture: (H, W, 3) uint8 RGB, on white."""

    subject: str
    prompt: str
    entity: str
    picture: np.ndarray


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
        fps: int,
    ) -> None:
        """Raises ModelError or InputError when something is not there or does not fit together."""
        self._settings, self._latents, self._fps = settings, latents, fps
        self._snr_shift, adapter = trained.snr_shift, trained.adapter
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._codec = open_codec(latents)
        self._text = open_text(latents, text_place)
        encoders = {"codec": self._codec.fingerprint(), "text": self._text.fingerprint()}
        _check_encoders(trained, encoders)
        dtype = torch.bfloat16 if settings.base_dtype == "bf16" else torch.float32
        config = None
        if adapter is not None:
            header = read_header(adapter)
            _check_pictures(adapter, header.made_with, latents)
            config = _switched(header.config, settings)
        self._model = open_model(load_base(trained.base, dtype), config)
        base_id = identify_base(trained.base)
        if adapter is not None:
            load_adapter(self._model, adapter, base_id)
        self._model.to(self._device).eval()
        self._null_text = config.null_text if config else trained.null_text
        self._made_with = {
            "base": base_id.fingerprint,
            "adapter": None if adapter is None else _sha256(adapter.read_bytes()),
            **encoders,
            "settings": {
                name: value for name, value in asdict(settings).items() if name in _DECIDES
            },
            "snr_shift": trained.snr_shift,
            "size": [latents.width, latents.height],
            "device": self._device,
            "torch": torch.__version__,
        }

    @property
    def takes_references(self) -> bool:
        """Whether there is an adapter."""
        return self._model.adapter is not None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of patches of each video."""
        frames, _, height, width = self._shape
        patch = self._model.transformer.config["patch_size"]
        return frames, height // patch, width // patch

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        side = self._codec.space_factor
        return (
            1 + (self._settings.num_frames - 1) // self._codec.time_factor,
            self._codec.latent_channels,
            self._latents.height // side,
            self._latents.width // side,
        )

    def draft(self, wish: Wish, seed: int, group: str) -> Draft:
        """What the video will be called. Raises ModelError when the prompt lacks the entity."""
        self._text.spans(wish.prompt, wish.entity)
        made_of: dict[str, Any] = {
            **self._made_with,
            "prompt": wish.prompt,
            "entity": wish.entity,
            "reference": _sha256(wish.picture.tobytes()) if group == WITH else None,
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
        )
        return Draft(record, wish)

    def make(
        self, draft: Draft, progress: Callable[[Step], None]
    ) -> tuple[np.ndarray, Sequence[Step]]:
        """(N, H, W, 3) uint8 RGB, and what was seen on the way."""
        seen: list[Step] = []

        def told(step: Step) -> None:
            seen.append(step)
            progress(step)

        noise = initial_noise([draft.record.seed], self._shape).to(self._device)
        conditions = self._conditions(draft)
        latents = sample(
            self._model, conditions, noise, self._settings.sampling, self._snr_shift, told
        )
        with torch.no_grad():
            video = self._codec.decode(latents.transpose(1, 2))[0]
        pixels = ((video + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        return pixels.permute(1, 2, 3, 0).numpy(), seen

    def _conditions(self, draft: Draft) -> Conditions:
        wish = draft.wish
        text = self._text.encode([wish.prompt])
        null_text = self._text.encode([""]) if self._null_text == "empty" else text * 0
        tokens = self._text.spans(wish.prompt, wish.entity)
        reference: Tensor | None = None
        if draft.record.group == WITH:
            size = (self._latents.width, self._latents.height)
            picture = encode_pictures(self._codec, wish.picture[None], size)  # (16, 1, h, w)
            reference = picture.transpose(0, 1)[None].to(self._device)
        return Conditions(
            text.to(self._device),
            null_text.to(self._device),
            reference,
            entity_mask([tokens], text.shape[1]).to(self._device),
        )


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


def _switched(config: AdapterConfig, settings: GenerateRun) -> AdapterConfig:
    """The adapter's own settings, with what acts in sampling as this run wants it.

    The backend that it was trained with may not run on this machine.
    """
    return replace(
        config,
        backend="auto",
        tab=replace(config.tab, sample=settings.tab),
        erae=replace(config.erae, sample=settings.erae),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
