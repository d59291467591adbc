"""A small SAM, with the same random weights for either implementation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from stages.networks.placement import Placement
from stages.networks.sam import SamSettings

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

KIND = "vit_small"
"""Its name in the package's registry, once `register` has put it there."""
_SIDE, _WIDTH, _LAYERS, _HEADS, _WINDOW, _GLOBAL = 128, 32, 2, 2, 3, (1,)

_RENAMED = (
    (
        r"^shared_image_embedding\.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^vision_encoder\.neck\.conv1", "image_encoder.neck.0"),
    (r"^vision_encoder\.neck\.layer_norm1", "image_encoder.neck.1"),
    (r"^vision_encoder\.neck\.conv2", "image_encoder.neck.2"),
    (r"^vision_encoder\.neck\.layer_norm2", "image_encoder.neck.3"),
    (r"^vision_encoder\.layers", "image_encoder.blocks"),
    (r"^vision_encoder", "image_encoder"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0", r"\1.layers.1"),
    (r"(mlps\.\d|iou_prediction_head)\.proj_in", r"\1.layers.0"),
    (r"(mlps\.\d|iou_prediction_head)\.proj_out", r"\1.layers.2"),
    (r"layer_norm_final_attn", "norm_final_attn"),
    (r"layer_norm(\d)", r"norm\1"),
)
"""transformers' names of the weights to the package's, one after another."""
_TWICE = "prompt_encoder.shared_embedding"  # the same as shared_image_embedding


def save(folder: Path, package: Literal["original", "transformers"]) -> SamSettings:
    """Writes it as one of the packages has it; the settings that load it."""
    torch.manual_seed(0)
    model = SamModel(_config())
    for weights in model.parameters():
        weights.data.add_(0.3 * torch.randn_like(weights))  # some begin at 0 and would hide much
    place = Placement("cpu", "f32", 2)
    if package == "transformers":
        model.save_pretrained(folder)
        return SamSettings(package, str(folder), placement=place)
    file = folder / "original.pth"
    torch.save(renamed(model.state_dict()), file)
    return SamSettings(package, str(file), kind=KIND, placement=place)


def register() -> None:
    """Has the authors' package know `KIND`, in this process: it builds what its registry names."""
    from segment_anything import sam_model_registry  # here: the other package does without

    sam_model_registry[KIND] = _package_model


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' class under the package's names."""
    named: dict[str, Tensor] = {}
    for name, weights in state.items():
        if re.search(_TWICE, name):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        named[name] = weights
    return named


def _package_model(checkpoint: None = None) -> Sam:
    """What the package's registry makes of `KIND`: its own classes, small."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    grid = _SIDE // 16
    return Sam(
        ImageEncoderViT(
            img_size=_SIDE,
            embed_dim=_WIDTH,
            depth=_LAYERS,
            num_heads=_HEADS,
            out_chans=_WIDTH,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
            use_rel_pos=True,
            window_size=_WINDOW,
            global_attn_indexes=_GLOBAL,
        ),
        PromptEncoder(_WIDTH, (grid, grid), (_SIDE, _SIDE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=_WIDTH,
            transformer=TwoWayTransformer(_LAYERS, _WIDTH, num_heads=4, mlp_dim=2 * _WIDTH),
            iou_head_hidden_dim=_WIDTH,
        ),
    )


def _config() -> SamConfig:
    return SamConfig(
        vision_config=SamVisionConfig(
            image_size=_SIDE,
            hidden_size=_WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            output_channels=_WIDTH,
            num_pos_feats=_WIDTH // 2,
            window_size=_WINDOW,
            global_attn_indexes=_GLOBAL,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=_WIDTH, image_size=_SIDE),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=_WIDTH,
            mlp_dim=2 * _WIDTH,
            num_attention_heads=4,
            iou_head_hidden_dim=_WIDTH,
        ),
    )
