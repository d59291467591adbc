"""A second implementation of the model, slow and obvious, for those of small_transformer.py.

Sample by sample and head by head, in fp64, with whole weight matrices for every kind of token,
explicit angles and an explicit softmax.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from small_transformer import FRAMES, HEIGHT, PATCHES, WIDTH, Batch
from torch import Tensor, nn

from model.config import EraeConfig
from model.transformer import CustomVideoX


@dataclass
class Slow:
    """One sample's v (T, C, H, W), and per layer the weight on the reference and A_e."""

    v: Tensor
    weight: list[Tensor]
    activation: list[Tensor]


def linear(layer: Any, x: Tensor, lora: Any = None, scale: float = 0.0) -> Tensor:
    weight = layer.weight
    if lora is not None:
        weight = weight + scale * lora.lora_B.weight @ lora.lora_A.weight
    return x @ weight.T + layer.bias


def normed(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return centred / spread * layer.weight + layer.bias


def turned(x: Tensor, place: tuple[float, float, float] | None) -> Tensor:
    """x: (D,), pairs of neighbours as complex numbers turned by place * 10000^(-2i/size)."""
    if place is None:
        return x
    angles = [
        where * 10000 ** (-2 * i / size)
        for where, size in zip(place, (4, 6, 6), strict=True)
        for i in range(size // 2)
    ]
    pairs = torch.view_as_complex(x.reshape(-1, 2))
    circle = torch.polar(
        torch.ones(len(angles), dtype=torch.float64), torch.tensor(angles).double()
    )
    return torch.view_as_real(pairs * circle).flatten()


def sincos(place: tuple[float, float, float]) -> Tensor:
    """(32,): the table of time (8), then of columns and rows (12 each), sines first."""
    t, h, w = place
    parts = []
    for where, size in ((t, 8), (w / 1.875, 12), (h / 1.875, 12)):
        angles = torch.tensor([where / 10000 ** (2 * i / size) for i in range(size // 2)])
        parts += [angles.double().sin(), angles.double().cos()]
    return torch.cat(parts)


def places(num_references: int, rotary: bool) -> list[tuple[float, float, float]]:
    """Of the video, then of the references, each a grid's width further left.

    The rotary grid of 3x4 is stretched to the base's 4x6: its height is the full 4, rows at
    0, 4/3, 8/3, and its width round(4/3 * 4) = 5, from round(0.5) = 0.
    """
    rows = [i * 4 / 3 for i in range(3)] if rotary else [0.0, 1.0, 2.0]
    columns = [i * 5 / 4 for i in range(4)] if rotary else [0.0, 1.0, 2.0, 3.0]
    width = 5 if rotary else WIDTH
    video = [(float(t), h, w) for t in range(FRAMES) for h in rows for w in columns]
    return video + [
        (0.0, h, w - (i + 1) * width) for i in range(num_references) for h in rows for w in columns
    ]


def patches(embed: Any, frames: Tensor) -> Tensor:
    """(T, C, H, W) -> (T*h*w, E)."""
    kernel = embed.proj.weight.flatten(1)
    return torch.stack(
        [
            kernel @ frame[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten() + embed.proj.bias
            for frame in frames
            for i in range(HEIGHT)
            for j in range(WIDTH)
        ]
    )


def chunks(norm: Any, time: Tensor, kind: str) -> tuple[Tensor, ...]:
    six = linear(norm.linear, time * torch.sigmoid(time)).chunk(6)
    return six[3:] if kind == "text" else six[:3]


def slow_sample(model: CustomVideoX, batch: Batch, number: int, entity: list[int]) -> Slow:
    base, lora, adapter = cast(Any, model.transformer), cast(Any, model.lora), model.adapter
    assert adapter is not None
    scale, rotary = adapter.alpha / adapter.rank, base.config["use_rotary_positional_embeddings"]
    t = int(batch.timestep[number])
    num_references = batch.reference.shape[1]

    def time_of(step: int) -> Tensor:
        return base.time_embedding(base.time_proj(torch.tensor([step])).double())[0]

    times = {"text": time_of(t), "video": time_of(t)}
    times["reference"] = time_of(0 if adapter.reference_timestep == "zero" else t)
    embed = base.patch_embed
    everywhere = places(num_references, rotary)
    x = torch.cat(
        [
            linear(embed.text_proj, batch.text[number]),
            patches(embed, batch.latents[number]),
            patches(embed, batch.reference[number]),
        ]
    )
    kinds = ["text"] * 5 + ["video"] * (FRAMES * PATCHES)
    kinds += ["reference"] * (num_references * PATCHES)
    where = [None] * 5 + (everywhere if rotary else [None] * len(everywhere))
    if not rotary:
        x = x + torch.cat([torch.zeros(5, 32).double(), torch.stack([*map(sincos, everywhere)])])

    own = adapter.erae if adapter.erae.layers == "own" else None
    bias = torch.zeros(len(kinds), len(kinds), dtype=torch.float64)
    m = math.tanh(-10 * (2 * t / 1000 - 1) ** 2 + 0.1)
    for q, kind in enumerate(kinds):
        if kind == "reference":
            if adapter.attention == "independent":
                bias[q, [k for k, other in enumerate(kinds) if other != "reference"]] = -math.inf
            continue
        if kind == "text" and adapter.bias_queries == "video":
            continue
        inside = kind == "video" and not own and bool(batch.region[number, q - 5])
        bias[q, [k for k, other in enumerate(kinds) if other == "reference"]] = m + 0.1 * inside

    weight, activation = [], []
    for block, adapters in zip(base.transformer_blocks, lora.transformer_blocks, strict=True):
        x, layer_weight, layer_activation = slow_block(
            block, adapters.attn1, x, kinds, where, times, bias, scale, entity, own
        )
        weight.append(layer_weight)
        activation.append(layer_activation)

    video = normed(base.norm_final, x[[k == "video" for k in kinds]])
    shift, stretch = linear(base.norm_out.linear, times["video"] * times["video"].sigmoid()).chunk(
        2
    )
    video = linear(base.proj_out, normed(base.norm_out.norm, video) * (1 + stretch) + shift)
    v = torch.zeros_like(batch.latents[number])
    for k, token in enumerate(video):
        frame, i, j = k // PATCHES, k % PATCHES // WIDTH, k % WIDTH
        v[frame, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = token.reshape(16, 2, 2)
    return Slow(v, weight, activation)


def region_of(activation: Tensor, erae: EraeConfig) -> list[bool]:
    """R of every video token, frame by frame."""
    inside: list[bool] = []
    for frame in activation.detach().reshape(FRAMES, PATCHES).numpy():
        low, high = np.percentile(frame, (1, 99), method="nearest")
        inside += list((np.clip(frame, low, high) - low) / (high - low) > erae.threshold)
    return inside


def slow_block(
    block: Any,
    lora: Any,
    x: Tensor,
    kinds: list[str],
    where: list[Any],
    times: dict[str, Tensor],
    bias: Tensor,
    scale: float,
    entity: list[int],
    own: EraeConfig | None,
) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn1

    def modulated(norm: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        three = [chunks(norm, times[kind], kind) for kind in kinds]
        shift, stretch, gate = (torch.stack(part) for part in zip(*three, strict=True))
        return normed(norm.norm, tokens) * (1 + stretch) + shift, gate

    def projected(layer: Any, adapter: Any, tokens: Tensor) -> Tensor:
        return torch.stack(
            [
                linear(layer, token, adapter if kind == "reference" else None, scale)
                for token, kind in zip(tokens, kinds, strict=True)
            ]
        )

    n, gate = modulated(block.norm1, x)
    q, k, v = (
        projected(getattr(attn, to), getattr(lora, to), n) for to in ("to_q", "to_k", "to_v")
    )
    video = [i for i, kind in enumerate(kinds) if kind == "video"]
    is_reference = torch.tensor([kind == "reference" for kind in kinds])
    slices = [slice(16 * head, 16 * head + 16) for head in range(attn.heads)]
    logits, heads, weight, activation = [], [], [], []
    for part in slices:
        turned_q, turned_k = (
            torch.stack(
                [turned(normed(norm, a), p) for a, p in zip(some[:, part], where, strict=True)]
            )
            for norm, some in ((attn.norm_q, q), (attn.norm_k, k))
        )
        logits.append(turned_q @ turned_k.T / 4)
        unbothered = logits[-1][video][:, ~is_reference].softmax(1)
        activation.append(unbothered[:, entity].sum(1))
    if own is not None:
        inside = region_of(torch.stack(activation).mean(0), own)
        bias = bias.clone()
        for i, r in zip(video, inside, strict=True):
            m = bias[i, is_reference]
            bias[i, is_reference] = m + own.b1 * r if own.form == "add" else m * r
    for part, some in zip(slices, logits, strict=True):
        odds = (some + bias).exp()
        share = odds / odds.sum(1, keepdim=True)
        heads.append(share @ v[:, part])
        weight.append(share[video][:, is_reference].sum(1).mean())
    x = x + gate * projected(attn.to_out[0], lora.to_out[0], torch.cat(heads, dim=1))
    n, gate = modulated(block.norm2, x)
    hidden = nn.functional.gelu(linear(block.ff.net[0].proj, n), approximate="tanh")
    x = x + gate * linear(block.ff.net[2], hidden)
    return x, torch.stack(weight).mean(), torch.stack(activation).mean(0)
