"""A small Grounding DINO, with the same random weights for either implementation."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
)

from stages.networks.grounding import GroundingSettings
from stages.networks.placement import Placement

_SPECIAL = {
    0: "[PAD]",
    100: "[UNK]",
    101: "[CLS]",
    102: "[SEP]",
    103: "[MASK]",
    1012: ".",
    1029: "?",
}
_WORDS = ("cat", "toy", "frog", "a", "red", "ball", "##s")
_QUERIES, _LAYERS, _WIDTH = 20, 2, 64

_RENAMED = (
    (r"^bbox_embed\.", "bbox_embed."),
    (r"^model\.text_backbone\.", "bert."),
    (r"^model\.text_projection\.", "feat_map."),
    (r"^model\.input_proj_vision\.", "input_proj."),
    (r"^model\.query_position_embeddings\.", "transformer.tgt_embed."),
    (r"^model\.level_embed$", "transformer.level_embed"),
    (r"^model\.enc_output", "transformer.enc_output"),
    (r"^model\.encoder_output_bbox_embed\.", "transformer.enc_out_bbox_embed."),
    # the picture's backbone
    (r"^model\.backbone\.conv_encoder\.model\.swin\.embeddings\.", "backbone.0."),
    (r"^model\.backbone\.conv_encoder\.model\.swin\.encoder\.", "backbone.0."),
    *(
        (
            rf"^model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage{n + 1}",
            f"backbone.0.norm{n}",
        )
        for n in (1, 2, 3)
    ),
    (r"patch_embeddings\.projection", "patch_embed.proj"),
    (r"^backbone\.0\.norm\.", "backbone.0.patch_embed.norm."),
    (r"attention\.relative_position_bias\.", "attn."),
    (r"(backbone.*)attention\.(q|k|v)_proj", r"\1attn.\2"),
    (r"attention\.o_proj", "attn.proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    # both transformers
    (r"^model\.(en|de)coder\.", r"transformer.\1coder."),
    (r"layers\.(\d+)\.text_enhancer_layer\.", r"text_layers.\1."),
    (r"layers\.(\d+)\.fusion_layer\.", r"fusion_layers.\1."),
    (r"layers\.(\d+)\.deformable_layer\.", r"layers.\1."),
    (r"layer_norm_before", "norm1"),
    (r"layer_norm_after", "norm2"),
    (r"vision_param", "gamma_v"),
    (r"text_param", "gamma_l"),
    (r"layer_norm_vision", "layer_norm_v"),
    (r"layer_norm_text", "layer_norm_l"),
    (r"(fusion_layers.*)vision_proj", r"\1v_proj"),
    (r"(fusion_layers.*)text_proj", r"\1l_proj"),
    (r"(transformer\.encoder.*)self_attn_layer_norm", r"\1norm1"),
    (r"(transformer\.encoder.*)final_layer_norm", r"\1norm2"),
    (r"self_attn_layer_norm", "norm2"),
    (r"encoder_attn_text_layer_norm", "catext_norm"),
    (r"encoder_attn_layer_norm", "norm1"),
    (r"final_layer_norm", "norm3"),
    (r"encoder_attn_text", "ca_text"),
    (r"encoder_attn", "cross_attn"),
    (r"decoder\.layer_norm", "decoder.norm"),
    (r"reference_points_head", "ref_point_head"),
    (r"(transformer.*)fc(\d)", r"\1linear\2"),
)
"""transformers' names of the weights to the package's, one after another."""


def save(folder: Path, package: Literal["original", "transformers"]) -> GroundingSettings:
    """Writes it as one of the packages has it; the settings that load it."""
    text = BertConfig(
        vocab_size=1100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    model, tokenizer = _model(text), BertTokenizer(vocab=_vocabulary())
    small = GroundingSettings(
        package, short_side_px=96, long_side_px=160, placement=Placement("cpu", "f32", 4)
    )
    if package == "transformers":
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return replace(small, model=str(folder))
    text.save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    weights, config = folder / "original.pth", folder / "small.json"
    torch.save({"model": renamed(model.state_dict())}, weights)
    config.write_text(json.dumps(_package_config()))
    return replace(small, model=str(weights), text=str(folder / "text"), config=str(config))


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' class under the package's names."""
    named: dict[str, Tensor] = {}
    for name, weights in state.items():
        if ".swin.layernorm." in name:  # of the classifier; the detector does not use it
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        named[name] = weights
    for query in [name for name in named if re.search(r"(?<!attention\.self)\.query\.", name)]:
        parts = [named.pop(query.replace(".query.", f".{x}.")) for x in ("query", "key", "value")]
        named[query.replace(".query.", ".in_proj_")] = torch.cat(parts)
    for query in [name for name in named if ".attn.q." in name]:
        parts = [named.pop(query.replace(".q.", f".{x}.")) for x in "qkv"]
        named[query.replace(".q.", ".qkv.")] = torch.cat(parts)
    return {f"module.{name}": weights for name, weights in named.items()}


def _model(text: BertConfig) -> GroundingDinoForObjectDetection:
    config = GroundingDinoConfig(
        backbone_config={"model_type": "swin", "out_indices": [2, 3, 4]},  # Swin-T: the package
        # knows no smaller one
        text_config=text,
        num_queries=_QUERIES,
        encoder_layers=_LAYERS,
        decoder_layers=_LAYERS,
        encoder_ffn_dim=_WIDTH,
        decoder_ffn_dim=_WIDTH,
    )
    torch.manual_seed(0)
    model = GroundingDinoForObjectDetection(config)
    for weights in model.parameters():
        weights.data.add_(0.05 * torch.randn_like(weights))  # some begin at 0 and would hide much
    return model


def _vocabulary() -> dict[str, int]:
    """Special tokens where BERT's vocabulary has them: transformers' class knows no others."""
    words = [_SPECIAL.get(i, f"[unused{i}]") for i in range(1100)]
    words[1030 : 1030 + len(_WORDS)] = _WORDS
    return {word: i for i, word in enumerate(words)}


def _package_config() -> dict[str, Any]:
    """The published one, smaller."""
    from groundingdino import config as package_configs  # here: the other package does without

    published = Path(next(iter(package_configs.__path__)), "GroundingDINO_SwinT_OGC.py")
    values = runpy.run_path(str(published))
    values = {name: value for name, value in values.items() if not name.startswith("__")}
    smaller = {"enc_layers": _LAYERS, "dec_layers": _LAYERS, "dim_feedforward": _WIDTH}
    return {**values, **smaller, "num_queries": _QUERIES}
