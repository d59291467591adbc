"""What every kind of adapter shares: a CogVideoX base, alone or frozen under a LoRA.

B batch, T latent frames, H x W latent pixels, C channels (16), n references; L text tokens of size
D, V video tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from model.config import AdapterConfig, Kind
from model.errors import ModelError
from model.lora import Lora
from model.merge import check_autocast
from model.position import Grid, video_rotary


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a forward saw that was told the entity, or whose backend knows the weight anyway.

    weight: (layers, B), the share of the video's attention that is on the reference, per layer;
    activation: (B, e, V), A_e, the mean over ERAE's layers, None without an entity; e is 1, or n
    where each reference has its own. region: (layers, B, e, V) bool, R where every layer has its
    own, else None.
    """

    weight: Tensor
    activation: Tensor | None
    region: Tensor | None


class Adapted(nn.Module):
    """Without an adapter it is the base, and all its weights learn.

    seed: of the fresh adapter, whose B is zero.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        adapter: AdapterConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if getattr(transformer, "peft_config", None):
            raise ModelError(
                "base: found an adapter that was loaded or merged into it, where it acts on all "
                "tokens; wanted the base alone: load it again, and the adapter with load_adapter"
            )
        self.transformer = transformer
        self.adapter = adapter
        self.diagnostics: Diagnostics | None = None
        self.lora: Lora | None = None
        if adapter is not None:
            if adapter.kind != self.kind:
                raise ModelError(
                    f"adapter.kind: found {adapter.kind!r} for a model of {self.kind!r}; wanted "
                    "the same: these weights are for other tokens"
                )
            transformer.requires_grad_(False)
            self.lora = Lora(transformer, adapter, seed)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """All weights of the adapter by name: what its file holds."""
        return {} if self.lora is None else dict(self.lora.named_parameters(prefix="lora"))

    def optimised_parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's weights that take a gradient, or all of the base's without an adapter."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def reference_weight(self) -> float | None:
        """The share of the video's attention on the reference in the last forward, over all samples
        and layers; None where nobody asked and the backend does not know it anyway.
        """
        return None if self.diagnostics is None else float(self.diagnostics.weight.mean())

    def _base(self, latents: Tensor, timestep: Tensor, text: Tensor, grid: Grid) -> Tensor:
        """The stock transformer's v (B, T, C, H, W)."""
        check_autocast(latents.device)
        rotary = None
        if self.transformer.config["use_rotary_positional_embeddings"]:
            head_dim = self.transformer.config["attention_head_dim"]
            rotary = video_rotary(grid, latents.shape[1], head_dim, latents.device)
        (v,) = self.transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            timestep=timestep,
            image_rotary_emb=rotary,
            return_dict=False,
        )
        return v

    def _grid(self, latents: Tensor) -> Grid:
        """Of latents (..., H, W)."""
        config = self.transformer.config
        p, (height, width) = config["patch_size"], latents.shape[-2:]
        if height % p or width % p:
            raise ModelError(
                f"found latents of {height}x{width}; wanted multiples of the patch, {p}: "
                f"use videos whose sides are multiples of {8 * p}"
            )
        return Grid(
            height // p, width // p, config["sample_height"] // p, config["sample_width"] // p
        )

    def _fitting(self, size: Sequence[int], latents: Tensor) -> AdapterConfig:
        """The adapter's config, once there is one; size: (B, n, C, H, W) of the references."""
        if self.adapter is None:
            raise ModelError(
                "found a reference and no adapter; the base reads none: give the model an adapter"
            )
        if tuple(size[2:]) != latents.shape[2:] or size[0] != len(latents):
            raise ModelError(
                f"found references {tuple(size)} for latents {tuple(latents.shape)}; "
                "wanted the same batch, channels and size: encode both alike"
            )
        return self.adapter
