"""The reference backends' networks at full size, with random weights: they cost what the real ones
do, and say nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torchvision.models.optical_flow import raft_large
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SamConfig,
    SamModel,
)

from stages.answer import SCHEMA
from stages.appearance import Appearance, AppearanceSettings
from stages.entities import Entities, EntitiesSettings
from stages.grounded import GroundedSegment
from stages.motion import Motion, MotionSettings
from stages.networks.grounding import GroundingSettings
from stages.networks.placement import Placement
from stages.networks.sam import SamSettings

Dtype = Literal["f32", "f16", "bf16"]

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def appearance(folder: Path, dtype: Dtype) -> Appearance:
    """CLIP ViT-L/14 and LAION's layers."""
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    CLIPModel(config).save_pretrained(folder / "clip")
    CLIPImageProcessor().save_pretrained(folder / "clip")
    widths = (768, 1024, 128, 64, 16, 1)
    layers = zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False)
    head = nn.ModuleDict({str(n): nn.Linear(wide, out) for n, wide, out in layers})
    torch.save({f"layers.{k}": v for k, v in head.state_dict().items()}, folder / "head.pth")
    settings = AppearanceSettings(
        backend="reference",
        model=str(folder / "clip"),
        head=str(folder / "head.pth"),
        published=False,
        placement=Placement(dtype=dtype),
    )
    return Appearance(settings)


def motion(folder: Path, dtype: Dtype) -> Motion:
    """Torchvision's raft_large."""
    torch.save(raft_large(weights=None).state_dict(), folder / "raft.pth")
    model = str(folder / "raft.pth")
    placement = replace(MotionSettings().placement, dtype=dtype)
    return Motion(MotionSettings(backend="reference", model=model, placement=placement))


def segment(folder: Path, dtype: Dtype) -> GroundedSegment:
    """Grounding DINO Swin-T and SAM ViT-B; every box counts as found, so that SAM has work."""
    GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(folder / "grounding")
    names = {n: f"[unused{n}]" for n in range(30522)}
    names |= {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    names |= {1029: "?", 2417: "red", 3608: "ball"}  # where BERT has them
    tokenizer = BertTokenizer(vocab={name: number for number, name in names.items()})
    tokenizer.save_pretrained(folder / "grounding")
    SamModel(SamConfig()).save_pretrained(folder / "sam")
    detector, sam = GroundingSettings(), SamSettings()
    return GroundedSegment(
        replace(
            detector,
            model=str(folder / "grounding"),
            box_threshold=0.0,
            text_threshold=0.0,
            placement=replace(detector.placement, dtype=dtype),
        ),
        replace(sam, model=str(folder / "sam"), placement=replace(sam.placement, dtype=dtype)),
    )


def entities(folder: Path, dtype: Dtype) -> Entities:
    """Qwen2.5 with the numbers of its 0.5B, and a byte-level tokenizer.

    Seven billion weights do not fit beside everything else. Random weights fill the schema to its
    bounds, a byte is a token, and an answer that is not in the caption is asked for twice: a real
    model writes less. So this is an upper bound, and its clips count as failed.
    """
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "qwen")
    tokenizer = _byte_tokenizer()
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder / "qwen")
    model = str(folder / "qwen")
    placement = replace(EntitiesSettings().placement, dtype=dtype)
    return Entities(EntitiesSettings(backend="reference", model=model, placement=placement))


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([json.dumps(SCHEMA)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
