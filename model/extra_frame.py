"""The baseline of Table 2's first row: the reference is one more frame of the video.

Its clean latent follows the T frames of the video, at the place of frame T and at the video's own
timestep; the LoRA acts on all tokens, and what is said of the extra frame is left out. B batch,
T latent frames, H x W latent pixels, C channels (16), n references; L text tokens of size D.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from model.adapted import Adapted
from model.config import AdapterConfig, Kind
from model.errors import ModelError
from model.lora import Attention, Lora, LowRank
from model.transformer import CustomVideoX


class ExtraFrame(Adapted):
    """Called like `CustomVideoX`; without a reference it is the base, without the LoRA.

    The base is changed where it stands: its attention carries the LoRA from then on.
    """

    kind: ClassVar[Kind] = "extra_frame"

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        adapter: AdapterConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transformer, adapter, seed)
        self._with_lora = True
        for layer, block in enumerate(transformer.transformer_blocks if self.lora else ()):
            attn, lora = cast(Attention, block.attn1), cast(Lora, self.lora).attention(layer)
            for name in ("to_q", "to_k", "to_v"):
                self._put(getattr(attn, name), getattr(lora, name))
            self._put(attn.to_out[0], cast(LowRank, lora.to_out[0]))

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor | None = None,
        region: Tensor | None = None,
        *,
        entity: Tensor | None = None,
        sampling: bool = False,
    ) -> Tensor:
        """The v of noisy latents (B, T, C, H, W), of the video's frames alone.

        timestep: (B,); text: (B, L, D); reference: (B, n, C, H, W), clean, frames T to T+n-1.
        There is no bias: a region is refused, and entity and sampling change nothing.
        """
        if region is not None:
            raise ModelError("found a region for an extra frame, which has no bias; leave it out")
        dtype, num_frames = self.transformer.dtype, latents.shape[1]
        noisy, prompt, grid = latents.to(dtype), text.to(dtype), self._grid(latents)
        if reference is not None:
            self._fitting(reference.shape, latents)
            noisy = torch.cat([noisy, reference.to(dtype)], dim=1)
            return self._base(noisy, timestep, prompt, grid)[:, :num_frames].to(latents.dtype)
        self._with_lora = False
        try:
            return self._base(noisy, timestep, prompt, grid).to(latents.dtype)
        finally:
            # On again for backward too, where checkpoints compute their blocks anew. Nothing that
            # learns was reached here, so that no backward comes back to this branch.
            self._with_lora = True

    def _put(self, layer: nn.Module, low: LowRank) -> None:
        def added(_: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
            return out + low(given[0]) if self._with_lora else out

        layer.register_forward_hook(added)


def open_model(
    transformer: CogVideoXTransformer3DModel, adapter: AdapterConfig | None = None, seed: int = 0
) -> Adapted:
    """The model of the adapter's kind; without an adapter the base, as `CustomVideoX` has it."""
    kind = ExtraFrame if adapter is not None and adapter.kind == ExtraFrame.kind else CustomVideoX
    return kind(transformer, adapter, seed)
