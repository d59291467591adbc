"""The base as diffusers alone would have it, to hold ours against: its files, class and positions.

B batch, T latent frames, C channels, H x W latent pixels, L text tokens of width D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.errors import ModelError
from model.weights import base_folder

Read = Callable[[str], Tensor]
"""A weight of a base by its name in diffusers' state dict."""

_PIXELS = 8  # of the picture, per latent pixel


@contextmanager
def stored(path_or_name: str | Path) -> Iterator[Read]:
    """The weights of a base as its files have them, read one by one. Raises ModelError."""
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        try:
            for file in sorted(base_folder(path_or_name).glob("*.safetensors")):
                opened = stack.enter_context(safe_open(file, "pt"))
                files |= dict.fromkeys(opened.keys(), opened)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path_or_name}: the base cannot be read: {error}") from error

        def read(name: str) -> Tensor:
            if name not in files:
                raise ModelError(f"{path_or_name}: found no weight {name} in the base's files")
            return files[name].get_tensor(name)

        yield read


@torch.no_grad()
def stock_v(
    config: Mapping[str, Any],
    read: Read,
    dtype: torch.dtype,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
) -> Tensor:
    """The v (B, T, C, H, W) of diffusers' own transformer with these weights, in this dtype.

    latents: (B, T, C, H, W); timestep: (B,); text: (B, L, D). Of the blocks one is there at a time:
    it takes the weights of each layer in turn, so that no second base has to fit beside the first.
    """
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.random.fork_rng(devices=[]):  # it is made with random weights
        stock = CogVideoXTransformer3DModel(**{**known, "num_layers": 1})
    nn.Module.to(stock, latents.device, dtype).eval()  # diffusers' own warns of nothing
    (block,) = stock.transformer_blocks
    around = {name for name in stock.state_dict() if not name.startswith("transformer_blocks.")}
    stock.load_state_dict({name: read(name) for name in around}, strict=False)
    layers = iter(range(config["num_layers"]))

    def becomes_the_next(module: nn.Module, given: Any) -> None:
        layer = f"transformer_blocks.{next(layers)}."
        module.load_state_dict({name: read(layer + name) for name in module.state_dict()})

    block.register_forward_pre_hook(becomes_the_next)
    stock.transformer_blocks = nn.ModuleList([block] * config["num_layers"])
    (v,) = stock(
        hidden_states=latents.to(dtype),
        encoder_hidden_states=text.to(dtype),
        timestep=timestep,
        image_rotary_emb=pipeline_rotary(stock, latents),
        return_dict=False,
    )
    return cast(Tensor, v)


def pipeline_rotary(
    transformer: CogVideoXTransformer3DModel, latents: Tensor
) -> tuple[Tensor, Tensor] | None:
    """What diffusers' pipeline turns video tokens of latents (B, T, C, H, W) by; None: nothing."""
    if not transformer.config["use_rotary_positional_embeddings"]:
        return None
    pipeline = SimpleNamespace(vae_scale_factor_spatial=_PIXELS, transformer=transformer)
    height, width = latents.shape[-2:]
    prepare = cast(Any, CogVideoXPipeline)._prepare_rotary_positional_embeddings
    return prepare(pipeline, _PIXELS * height, _PIXELS * width, latents.shape[1], latents.device)
