"""A video of a subject from a prompt and its picture: what Python users call, and the jobs too.

B videos, N frames of H x W pixels; T latent frames of C channels, h x w; L text tokens of width D;
n references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from model.adapted import Adapted
from model.adapter_file import adapter_file, check_encoder, load_adapter, read_header
from model.bias import entity_mask
from model.codec import Codec, DctCodec, VaeCodec
from model.config import SamplingConfig, switched
from model.errors import ModelError
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.offload import VisitingLayers, visiting
from model.pixels import from_rgb, to_rgb
from model.sampling import Conditions, Step, initial_noise, sample
from model.text import TextEncoder
from model.weights import base_snr_shift, identify_base, load_base

Picture = Image.Image | np.ndarray


@dataclass(frozen=True, slots=True)
class Videos:
    """One per seed.

    pixels: (B, N, H, W, 3) uint8 RGB; latents: (B, T, C, h, w) fp32 on the CPU; steps: of each
    video, with what its attention saw.
    """

    pixels: np.ndarray
    latents: Tensor
    steps: Sequence[Sequence[Step]]

    @property
    def frames(self) -> list[list[Image.Image]]:
        """The pictures of each video, as diffusers' pipelines give them."""
        return [[Image.fromarray(frame) for frame in video] for video in self.pixels]


class CustomVideoXPipeline:
    """Text encoder, transformer with its adapter, and codec, behind diffusers' words.

    size: (width, height) in pixels of a video for which none is asked: what the adapter was trained
    at, else the base.
    """

    def __init__(
        self,
        model: Adapted,
        codec: Codec,
        text_encoder: TextEncoder,
        *,
        null_text: Literal["empty", "zeros"] = "empty",
        snr_shift: float = 1.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        """null_text: without an adapter, which knows its own.

        Raises ModelError when the three do not fit together.
        """
        config = model.transformer.config
        for what, found, wanted in (
            ("codec's channels", codec.latent_channels, config["in_channels"]),
            ("text encoder's width", text_encoder.dim, config["text_embed_dim"]),
        ):
            if found != wanted:
                raise ModelError(
                    f"the {what}: found {found}, the base wants {wanted}; use the base's own"
                )
        self.model, self.codec, self.text_encoder = model.eval(), codec, text_encoder
        side = codec.space_factor
        self.size = size or (side * config["sample_width"], side * config["sample_height"])
        self._null_text = model.adapter.null_text if model.adapter else null_text
        self.snr_shift = snr_shift
        self._device = torch.device("cpu")
        self._guests: tuple[nn.Module, ...] = ()  # networks that are on the device while they work
        self._kept: Mapping[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        adapter: str | Path | None = None,
        *,
        codec: str | None = None,
        text_encoder: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
        fp8_storage: bool = False,
        snr_shift: float | None = None,
        tab: bool = True,
        erae: bool = True,
    ) -> Self:
        """On the CPU, until `to` or `enable_model_cpu_offload`.

        base: hub name or folder; adapter: a file of ours, or a checkpoint's folder, None for the
        base alone. codec, text_encoder: hub name or folder, by default the base's own; codec "dct"
        has no weights. dtype: what all three compute in; fp8_storage: the transformer's weights in
        eight bits, 6.4 GB of the 5B. snr_shift: by default what the base's scheduler says,
        without one 1.0 for a 5B, 3.0 for a 2B. Raises ModelError when something is missing or does
        not fit together.
        """
        place, header, config = str(base), None, None
        file = None if adapter is None else adapter_file(Path(adapter))
        if file is not None:
            header = read_header(file)
            config = switched(header.config, tab, erae)
        transformer = load_base(base, dtype)
        if fp8_storage:
            store_in_fp8(transformer)
        model = open_model(transformer, config)
        tokens = model.transformer.config["max_text_seq_length"]
        decoder = DctCodec() if codec == DctCodec.name else VaeCodec(codec or place, dtype)
        encoder = TextEncoder(text_encoder or place, tokens, dtype)
        size = None
        if file is not None and header is not None:
            load_adapter(model, file, identify_base(base))
            for what, found in (("codec", decoder), ("text", encoder)):
                check_encoder(file, header, what, found.fingerprint())
            size = header.size
        shift = base_snr_shift(base) if snr_shift is None else snr_shift
        return cls(model, decoder, encoder, snr_shift=shift, size=size)

    def to(self, device: str | torch.device) -> Self:
        """All three stay on the device."""
        self._device = torch.device(device)
        for network in self._networks:
            network.to(self._device)
        return self

    def enable_model_cpu_offload(self, device: str = "cuda") -> Self:
        """Each of the three is on the device only while it works; else it waits on the CPU.

        The device then holds the largest of them: 11 GB of the 5B in bf16. Without a GPU nothing
        changes. Call it in place of `to`.
        """
        return self._offloaded(device, self._networks)

    def enable_sequential_cpu_offload(self, device: str = "cuda") -> Self:
        """Of the transformer one layer at a time: for the smallest cards, and slow.

        The adapter stays on the device.
        """
        self._offloaded(device, (*self.codec.networks, *self.text_encoder.networks))
        if self._guests:
            VisitingLayers(self.model.transformer, self._device)
            if self.model.lora is not None:
                self.model.lora.to(self._device)
        return self

    def keep_prompts(self, prompts: Iterable[str]) -> None:
        """Encodes these, and lets the text encoder go: no other prompt can be asked for then."""
        wanted = dict.fromkeys(["", *prompts])
        self._kept = {prompt: self._encoded(prompt).cpu() for prompt in wanted}
        self.text_encoder.release()
        self._guests = tuple(guest for guest in self._guests if guest in self._networks)

    def latent_shape(self, num_frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(T, C, h, w). Raises ModelError where there are no such latents."""
        width, height = size
        patch = self.model.transformer.config["patch_size"] * self.codec.space_factor
        if min(size) < patch or width % patch or height % patch:
            raise ModelError(
                f"found a video of {width}x{height}; wanted multiples of {patch} pixels"
            )
        step = self.codec.frame_step
        if num_frames < 1 or num_frames % step != 1:
            raise ModelError(
                f"num_frames: found {num_frames}; wanted 1 more than a multiple of {step}"
            )
        side = self.codec.space_factor
        frames = 1 + (num_frames - 1) // self.codec.time_factor
        return frames, self.codec.latent_channels, height // side, width // side

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        reference: Picture | Sequence[Picture] | Tensor | None = None,
        entity: str | Sequence[str] | None = None,
        *,
        negative_prompt: str = "",
        seed: int | Sequence[int] = 0,
        num_frames: int = 25,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 6.0,
        reference_guidance_scale: float = 1.0,
        progress: Callable[[Step], None] | None = None,
    ) -> Videos:
        """One video per seed, whatever others are made beside it.

        reference: (H, W, 3) uint8 RGB pictures of subjects on white, as large as the video (what
        pipeline.reference makes of a file), or their latents (n, C, h, w); None makes the base's
        own video. entity: the words of the prompt that name the subject, or those of each; None
        leaves ERAE out. negative_prompt: stands in the place of the empty one. progress: is told
        every step; None shows a bar. Raises ModelError where something does not fit.
        """
        settings = SamplingConfig(num_inference_steps, guidance_scale, reference_guidance_scale)
        size = (width or self.size[0], height or self.size[1])
        shape = self.latent_shape(num_frames, size)
        conditions = self._conditions(prompt, reference, entity, negative_prompt, size)
        seeds = [seed] if isinstance(seed, int) else list(seed)
        made: list[Tensor] = []
        steps: list[list[Step]] = []
        with self._told(progress, len(seeds) * settings.steps) as told:
            for one in seeds:
                steps.append([])
                noise = initial_noise([one], shape).to(self._device)

                def heard(step: Step, seen: list[Step] = steps[-1]) -> None:
                    seen.append(step)
                    told(step)

                with self._at_work(self.model):
                    made.append(
                        sample(self.model, conditions, noise, settings, self.snr_shift, heard)
                    )
        with self._at_work(*self.codec.networks):
            pixels = [to_rgb(self.codec.decode(one.transpose(1, 2))[0]) for one in made]
        return Videos(np.stack(pixels), torch.cat(made).cpu(), steps)

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        return (*self.text_encoder.networks, self.model, *self.codec.networks)

    def _offloaded(self, device: str, guests: tuple[nn.Module, ...]) -> Self:
        if torch.cuda.is_available() or torch.device(device).type != "cuda":
            self._device, self._guests = torch.device(device), guests
        return self

    def _at_work(self, *networks: nn.Module) -> AbstractContextManager[None]:
        guests = [network for network in networks if network in self._guests]
        return visiting(guests, self._device) if guests else nullcontext()

    def _encoded(self, prompt: str) -> Tensor:
        """(1, L, D), by itself: beside others its last bits would be others."""
        if prompt in self._kept:
            return self._kept[prompt].to(self._device)
        with self._at_work(*self.text_encoder.networks):
            return self.text_encoder.encode([prompt])

    def _conditions(
        self,
        prompt: str,
        reference: Picture | Sequence[Picture] | Tensor | None,
        entity: str | Sequence[str] | None,
        negative_prompt: str,
        size: tuple[int, int],
    ) -> Conditions:
        text = self._encoded(prompt)
        zeros = self._null_text == "zeros" and not negative_prompt
        null_text = torch.zeros_like(text) if zeros else self._encoded(negative_prompt)
        if reference is None:
            return Conditions(text, null_text)
        clean = reference if isinstance(reference, Tensor) else self._latents(reference, size)
        words = [entity] if isinstance(entity, str) else entity
        named = None
        if words is not None:
            tokens = [self.text_encoder.spans(prompt, one) for one in words]
            mask = entity_mask(tokens, text.shape[1]).to(self._device)  # (e, L)
            named = mask[None] if len(tokens) > 1 else mask
        return Conditions(text, null_text, clean[None].to(self._device), named)

    def _latents(self, given: Picture | Sequence[Picture], size: tuple[int, int]) -> Tensor:
        """(n, C, h, w): each picture's own mode."""
        pictures = [given] if isinstance(given, Image.Image | np.ndarray) else given
        encoded: list[Tensor] = []
        with self._at_work(*self.codec.networks):
            for picture in pictures:
                pixels = from_rgb(_checked(picture, size)[None])
                encoded.append(self.codec.encode(pixels).mode()[0, :, 0])
        return torch.stack(encoded)

    @contextmanager
    def _told(
        self, progress: Callable[[Step], None] | None, total: int
    ) -> Iterator[Callable[[Step], None]]:
        if progress is not None:
            yield progress
            return
        with tqdm(total=total, unit="step", disable=None) as bar:  # nowhere but on a terminal
            yield lambda step: cast(None, bar.update())


def _checked(picture: Picture, size: tuple[int, int]) -> np.ndarray:
    pixels = np.asarray(picture)
    if pixels.shape != (size[1], size[0], 3) or pixels.dtype != np.uint8:
        raise ModelError(
            f"reference: found a picture of {pixels.shape} {pixels.dtype}; wanted "
            f"{(size[1], size[0], 3)} uint8 RGB, the subject on white, as large as the video; "
            "pipeline.reference.open_reference makes it of a file"
        )
    return pixels
