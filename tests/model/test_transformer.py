"""The model against the stock transformer, and against a slow one that is written out below."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from model.config import TINY, AdapterConfig, EraeConfig, TabConfig
from model.errors import ModelError
from model.position import Grid, video_rotary
from model.transformer import CustomVideoX
from model.weights import init_tiny_base

SMALL = replace(
    TINY,
    num_layers=3,
    num_attention_heads=2,
    attention_head_dim=16,
    time_embed_dim=24,
    text_embed_dim=10,
    max_text_seq_length=5,
    sample_width=12,
    sample_height=8,
)
SINCOS = replace(SMALL, use_rotary_positional_embeddings=False)
FRAMES, HEIGHT, WIDTH = 2, 3, 4  # in patches: not the base's own grid
PATCHES = HEIGHT * WIDTH
ADAPTER = AdapterConfig(rank=3, alpha=6, erae=EraeConfig(train=True))


def base_of(config: Any = SMALL) -> CogVideoXTransformer3DModel:
    """Norms and biases are made to matter: fresh ones are ones and zeros."""
    base = init_tiny_base(0, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in base.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return base


def model_of(adapter: AdapterConfig | None = ADAPTER, config: Any = SMALL) -> CustomVideoX:
    """With an adapter that was trained, so to speak."""
    model = CustomVideoX(base_of(config), adapter)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


@dataclass
class Batch:
    """Two samples at two times."""

    latents: Tensor
    timestep: Tensor
    text: Tensor
    reference: Tensor
    region: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32, num_references: int = 1) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.latents = normal(2, FRAMES, 16, 2 * HEIGHT, 2 * WIDTH)
        self.timestep = torch.tensor([500, 80])
        self.text = normal(2, 5, 10)
        self.reference = normal(2, num_references, 16, 2 * HEIGHT, 2 * WIDTH)
        self.region = normal(2, FRAMES * PATCHES) > 0.5


# A second implementation: sample by sample and head by head, in fp64, with whole weight matrices
# for every kind of token, explicit angles and an explicit softmax.


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
    video = [(float(t), h, w) for t in range(FRAMES) for h in rows for w in columns]
    return video + [
        (0.0, h, w - (i + 1) * WIDTH) for i in range(num_references) for h in rows for w in columns
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

    bias = torch.zeros(len(kinds), len(kinds), dtype=torch.float64)
    m = math.tanh(-10 * (2 * t / 1000 - 1) ** 2 + 0.1)
    for q, kind in enumerate(kinds):
        if kind == "reference":
            if adapter.attention == "independent":
                bias[q, [k for k, other in enumerate(kinds) if other != "reference"]] = -math.inf
            continue
        if kind == "text" and adapter.bias_queries == "video":
            continue
        inside = kind == "video" and bool(batch.region[number, q - 5])
        bias[q, [k for k, other in enumerate(kinds) if other == "reference"]] = m + 0.1 * inside

    weight, activation = [], []
    for block, adapters in zip(base.transformer_blocks, lora.transformer_blocks, strict=True):
        x, layer_weight, layer_activation = slow_block(
            block, adapters.attn1, x, kinds, where, times, bias, scale, entity
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
    heads, weight, activation = [], [], []
    for head in range(attn.heads):
        own = slice(16 * head, 16 * head + 16)
        turned_q, turned_k = (
            torch.stack(
                [turned(normed(norm, a), p) for a, p in zip(some[:, own], where, strict=True)]
            )
            for norm, some in ((attn.norm_q, q), (attn.norm_k, k))
        )
        logits = turned_q @ turned_k.T / 4
        odds = (logits + bias).exp()
        share = odds / odds.sum(1, keepdim=True)
        heads.append(share @ v[:, own])
        weight.append(share[video][:, is_reference].sum(1).mean())
        unbothered = logits[video][:, ~is_reference].softmax(1)
        activation.append(unbothered[:, entity].sum(1))
    x = x + gate * projected(attn.to_out[0], lora.to_out[0], torch.cat(heads, dim=1))
    n, gate = modulated(block.norm2, x)
    hidden = nn.functional.gelu(linear(block.ff.net[0].proj, n), approximate="tanh")
    x = x + gate * linear(block.ff.net[2], hidden)
    return x, torch.stack(weight).mean(), torch.stack(activation).mean(0)


VARIANTS = {
    "the paper's": (ADAPTER, SMALL, 1),
    "independent": (replace(ADAPTER, attention="independent"), SMALL, 1),
    "two references": (ADAPTER, SMALL, 2),
    "two references, independent": (replace(ADAPTER, attention="independent"), SMALL, 2),
    "shared time, unbiased text": (
        replace(ADAPTER, reference_timestep="shared", bias_queries="video"),
        SMALL,
        1,
    ),
    "sin-cos": (ADAPTER, SINCOS, 2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_equals_the_slow_implementation(name: str) -> None:
    adapter, config, num_references = VARIANTS[name]
    model, batch = model_of(adapter, config).double(), Batch(torch.float64, num_references)
    entity = torch.tensor([[False, True, False, True, False], [True, False, False, False, False]])
    v = model(
        batch.latents, batch.timestep, batch.text, batch.reference, batch.region, entity=entity
    )
    seen, weights = model.diagnostics, list(model.optimised_parameters().values())
    grads = torch.autograd.grad(v.square().mean(), weights)

    slow = [
        slow_sample(model, batch, i, row.nonzero().flatten().tolist())
        for i, row in enumerate(entity)
    ]
    wanted = torch.stack([one.v for one in slow])
    slow_grads = torch.autograd.grad(wanted.square().mean(), weights)
    assert torch.allclose(v, wanted, atol=1e-6)  # diffusers turns in fp32
    for grad, slow_grad in zip(grads, slow_grads, strict=True):
        assert torch.allclose(grad, slow_grad, atol=1e-6 * slow_grad.abs().max().item(), rtol=1e-5)
    assert seen is not None
    weight = torch.stack([torch.stack(one.weight) for one in slow], dim=1)
    assert torch.allclose(seen.weight, weight, atol=1e-6)
    middle = torch.stack([one.activation[1] for one in slow])  # the middle third of three layers
    assert torch.allclose(seen.activation, middle, atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, SINCOS, replace(SMALL, sample_width=8, sample_height=6)])
def test_without_a_reference_it_is_the_stock_transformer(config: Any) -> None:
    batch, model = Batch(), model_of(config=config)
    stock = copy.deepcopy(model.transformer)
    grid = Grid(HEIGHT, WIDTH, config.sample_height // 2, config.sample_width // 2)
    turn = video_rotary(grid, FRAMES, 16, torch.device("cpu"))  # diffusers', see test_position.py
    wanted = stock(
        batch.latents,
        batch.text,
        batch.timestep,
        image_rotary_emb=turn if config.use_rotary_positional_embeddings else None,
    ).sample
    assert torch.equal(model(batch.latents, batch.timestep, batch.text), wanted)
    alone = CustomVideoX(stock)(batch.latents, batch.timestep, batch.text)
    assert torch.equal(alone, wanted)


@pytest.mark.parametrize("bias_queries", ["video+text", "video"])
@pytest.mark.parametrize("attention", ["joint", "independent"])
@pytest.mark.parametrize(
    ("config", "dtype", "tolerance"),
    [
        (SMALL, torch.float32, 1e-5),
        (SINCOS, torch.float64, 1e-12),  # rotary places are turned in fp32 by diffusers itself
    ],
)
def test_a_hidden_reference_leaves_the_base(
    attention: Any, bias_queries: Any, config: Any, dtype: torch.dtype, tolerance: float
) -> None:
    adapter = replace(ADAPTER, attention=attention, bias_queries=bias_queries)
    model, batch = model_of(adapter, config).to(dtype), Batch(dtype)
    present = torch.tensor([True, False])
    v = model(batch.latents, batch.timestep, batch.text, batch.reference, None, present)
    removed = model(batch.latents, batch.timestep, batch.text)
    shown = model(batch.latents, batch.timestep, batch.text, batch.reference)
    assert (v[1] - removed[1]).abs().max() < tolerance
    assert (v[0] - shown[0]).abs().max() < tolerance
    assert (shown - removed).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-2


def test_a_fresh_adapter_is_not_the_base_but_its_clean_tokens_alone() -> None:
    batch = Batch()
    model, plain = CustomVideoX(base_of(), ADAPTER), CustomVideoX(base_of(), ADAPTER)
    nn.init.zeros_(plain.adapter_parameters()["lora.transformer_blocks.0.attn1.to_q.lora_A.weight"])
    v = model(batch.latents, batch.timestep, batch.text, batch.reference)
    assert torch.equal(v, plain(batch.latents, batch.timestep, batch.text, batch.reference))
    assert not torch.allclose(v, model(batch.latents, batch.timestep, batch.text), atol=1e-2)


def test_the_gradient_reaches_what_is_optimised_and_nothing_else() -> None:
    model, batch = model_of(), Batch()
    model(batch.latents, batch.timestep, batch.text, batch.reference).square().mean().backward()
    reached = {n for n, w in model.named_parameters() if w.grad is not None and w.grad.any()}
    assert reached == set(model.optimised_parameters())
    left = set(model.adapter_parameters()) - reached
    assert {name.split(".")[4] for name in left} == {"to_q", "to_out"}
    assert all(name.startswith("lora.transformer_blocks.2.") for name in left)


def test_a_base_alone_trains_all_its_weights() -> None:
    model, batch = model_of(None), Batch()
    model(batch.latents, batch.timestep, batch.text).square().mean().backward()
    assert set(model.optimised_parameters()) == {name for name, _ in model.named_parameters()}
    assert all(weight.grad is not None for weight in model.optimised_parameters().values())


def test_checkpointing_changes_no_gradient() -> None:
    model, batch = model_of(), Batch()
    weights = list(model.optimised_parameters().values())

    def gradients() -> tuple[Tensor, ...]:
        v = model(batch.latents, batch.timestep, batch.text, batch.reference, batch.region)
        return torch.autograd.grad(v.square().mean(), weights)

    wanted = gradients()
    model.transformer.enable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(gradients(), wanted, strict=True))


def test_bf16_stays_near_fp32() -> None:
    model, batch = model_of(), Batch()
    call = (batch.latents, batch.timestep, batch.text, batch.reference, batch.region)
    exact = model(*call)
    nn.Module.to(model.transformer, torch.bfloat16)
    rounded = model(*call)
    assert rounded.dtype == torch.float32
    assert next(iter(model.adapter_parameters().values())).dtype == torch.float32
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.03  # 0.015 when written


def test_the_switches_for_sampling_hold_in_sampling() -> None:
    model = model_of(AdapterConfig(rank=3, tab=TabConfig(train=True, sample=False)))
    batch = Batch()
    call = (batch.latents, torch.tensor([0, 0]), batch.text, batch.reference)
    suppressed, free = model(*call), model(*call, sampling=True)
    bare = model_of(AdapterConfig(rank=3, tab=TabConfig(train=False)))
    assert torch.equal(free, bare(*call))
    assert not torch.allclose(free, suppressed, atol=1e-3)


def test_a_call_that_does_not_fit_is_one_line() -> None:
    batch, latents = Batch(), Batch().latents
    rest = (batch.timestep, batch.text)
    with pytest.raises(ModelError, match="no adapter"):
        model_of(None)(latents, *rest, batch.reference)
    model = model_of(AdapterConfig(rank=3))
    with pytest.raises(ModelError, match=r"while erae\.train is off"):
        model(latents, *rest, batch.reference, batch.region)
    with pytest.raises(ModelError, match="encode both alike"):
        model(latents, *rest, batch.reference[..., :4])
    with pytest.raises(ModelError, match="multiples of 16"):
        model(latents[..., :5], *rest)
    with pytest.raises(ModelError, match="layers 0-2"):
        model_of(replace(ADAPTER, erae=EraeConfig(layers="14-27")))
