"""A CLIP of transformers' own class and a head of LAION's form, small enough for any machine."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

WIDTH = 24
"""Of an embedding."""

_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": WIDTH,
}


def save_clip(folder: Path) -> Path:
    """Random weights, pictures of 224 px as ViT-L/14 wants them; in the layout of the hub."""
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**_LAYERS, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 2},  # OpenAI's
        vision_config={**_LAYERS, "image_size": 224, "patch_size": 32},
        projection_dim=WIDTH,
    )
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> Path:
    """Of the same class, with letters for words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    ends = {"<|startoftext|>": 62, "<|endoftext|>": 63}  # the end's is the largest number
    CLIPTokenizer(vocab=vocabulary | ends, merges=[]).save_pretrained(folder)
    return folder


def save_head(file: Path, width: int = WIDTH) -> Path:
    """Keys and layers as in LAION's file, narrower."""
    chance = torch.Generator().manual_seed(0)
    state = {}
    for number, (before, after) in {0: (width, 16), 2: (16, 8), 4: (8, 1)}.items():
        state[f"layers.{number}.weight"] = torch.randn(after, before, generator=chance) / 4
        state[f"layers.{number}.bias"] = torch.randn(after, generator=chance)
    torch.save(state, file)
    return file
