"""What one training step of one sample costs: tokens, and operations of matrix products.

L text tokens of size D, V = T*h*w video tokens, M = L+V main tokens, R reference tokens, E width.

A multiplication and an addition are two operations. What is elementwise is left out, as the field
does; it takes time all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

from model.config import AdapterConfig, TransformerConfig

_PATCH, _CHANNELS = 2, 16  # of CogVideoX 1.0, the only bases that there are here


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Of one training sample: latent frames, latent pixels, and how many references."""

    frames: int = 7  # the paper: 25 frames of 480x720
    height: int = 60
    width: int = 90
    references: int = 1

    def patches(self) -> int:
        """Tokens of one latent frame."""
        return self.height * self.width // _PATCH**2


@dataclass(frozen=True, slots=True)
class Flops:
    """Of one sample's step.

    forward, backward: the model's own, what a share of the peak is counted in. A frozen layer
    passes gradients on and takes none, and the first block need not even pass them on.
    again: what checkpoints compute a second time; kernels: what the backward of an attention does
    beyond: its logits once more, and with a mask the first block's gradients that nobody asks for.
    """

    forward: int
    backward: int
    again: int
    kernels: int

    @property
    def model(self) -> int:
        """Without what is computed twice."""
        return self.forward + self.backward

    @property
    def executed(self) -> int:
        """All that the device does."""
        return self.model + self.again + self.kernels


@dataclass(frozen=True, slots=True)
class _Product:
    """operations: of the forward. passes, learns: whether the backward takes the gradient of what
    comes in, and of the weight. An attention passes on two: of queries and keys, and of values.
    """

    operations: int
    passes: bool
    learns: bool = False
    is_attention: bool = False


def sizes(transformer: CogVideoXTransformer3DModel) -> TransformerConfig:
    """Of a base that is there."""
    return TransformerConfig(
        **{field.name: transformer.config[field.name] for field in fields(TransformerConfig)}
    )


def tokens(base: TransformerConfig, adapter: AdapterConfig | None, sample: SampleSize) -> int:
    """Text, video and reference tokens of one sample: 11,026 at the paper's size."""
    references = 0 if adapter is None else sample.references
    return base.max_text_seq_length + (sample.frames + references) * sample.patches()


def step_flops(
    base: TransformerConfig,
    adapter: AdapterConfig | None,
    sample: SampleSize,
    recomputed: frozenset[int] = frozenset(),
) -> Flops:
    """Without an adapter the base learns, and no reference is read.

    recomputed: the blocks whose activations the backward computes again. A backend "auto" is taken
    for what it is on a GPU.
    """
    forward = backward = again = kernels = 0
    merged = adapter is not None and adapter.backend in ("auto", "merged")
    for layer in range(base.num_layers):
        block = list(_block(base, adapter, sample, layer))
        own = sum(one.operations for one in block)
        forward, backward = forward + own, backward + sum(map(_backward, block))
        again += own * (layer in recomputed)
        kernels += sum(_beyond(one, merged) for one in block if one.is_attention)
    around = list(_around(base, adapter, sample))
    forward += sum(one.operations for one in around)
    backward += sum(map(_backward, around))
    return Flops(forward, backward, again, kernels)


def _beyond(attention: _Product, merged: bool) -> int:
    """What the kernel's backward does that the model does not ask for."""
    logits = attention.operations // 2
    if attention.passes:
        return logits
    return 0 if merged else logits + 2 * attention.operations


def _backward(product: _Product) -> int:
    gradients = (2 if product.is_attention else 1) * product.passes + product.learns
    return product.operations * gradients


def _block(
    base: TransformerConfig, adapter: AdapterConfig | None, sample: SampleSize, layer: int
) -> Iterator[_Product]:
    learns, passes = adapter is None, adapter is None or layer > 0
    if adapter is None or adapter.kind == "extra_frame":
        extra = 0 if adapter is None else sample.references
        every = base.max_text_seq_length + (sample.frames + extra) * sample.patches()
        yield from _modulations(base, learns)
        yield from _projections(base, adapter, every, 3, passes, learns)
        yield _attention(base, every, every)
        yield from _projections(base, adapter, every, 1, True, learns)
        yield from _feed_forward(base, every, learns)
        return
    main = base.max_text_seq_length + sample.frames * sample.patches()
    reference = sample.references * sample.patches()
    yield from _modulations(base, False)
    yield from _projections(base, None, main, 3, passes, False)
    yield _attention(base, main, main, passes)
    yield _attention(base, main, reference)
    yield from _projections(base, None, main, 1, True, False)
    yield from _feed_forward(base, main, False)
    if layer == base.num_layers - 1:  # the reference only answers
        yield next(_modulations(base, False))
        yield from _projections(base, adapter, reference, 2, passes, False)
        return
    seen = reference + (main if adapter.attention == "joint" else 0)
    yield from _modulations(base, False)
    yield from _projections(base, adapter, reference, 3, passes, False)
    yield _attention(base, reference, seen)
    yield from _projections(base, adapter, reference, 1, True, False)
    yield from _feed_forward(base, reference, False)


def _projections(
    base: TransformerConfig,
    adapter: AdapterConfig | None,
    count: int,
    layers: int,
    passes: bool,
    learns: bool,
) -> Iterator[_Product]:
    """So many of q, k, v, out for `count` tokens, with the LoRA of an adapter."""
    wide = _width(base)
    for _ in range(layers):
        yield _Product(2 * count * wide * wide, passes, learns)
        if adapter is not None:
            yield _Product(2 * count * wide * adapter.rank, passes, True)
            yield _Product(2 * count * adapter.rank * wide, True, True)


def _feed_forward(base: TransformerConfig, count: int, learns: bool) -> Iterator[_Product]:
    for _ in range(2):
        yield _Product(8 * count * _width(base) ** 2, True, learns)


def _attention(base: TransformerConfig, queries: int, keys: int, passes: bool = True) -> _Product:
    return _Product(4 * queries * keys * _width(base), passes, is_attention=True)


def _modulations(base: TransformerConfig, learns: bool) -> Iterator[_Product]:
    """Of both halves of a block; they read the time alone."""
    for _ in range(2):
        yield _Product(12 * base.time_embed_dim * _width(base), learns, learns)


def _around(
    base: TransformerConfig, adapter: AdapterConfig | None, sample: SampleSize
) -> Iterator[_Product]:
    """Patches, text, time, and the way out."""
    wide, learns, video = _width(base), adapter is None, sample.frames * sample.patches()
    extra = 0 if adapter is None else sample.references * sample.patches()
    patch = _PATCH**2 * _CHANNELS
    yield _Product(2 * (video + extra) * patch * wide, False, learns)
    yield _Product(2 * base.max_text_seq_length * base.text_embed_dim * wide, False, learns)
    times = 2 if adapter is not None and adapter.kind == "reference" else 1
    for _ in range(times):
        yield _Product(2 * wide * base.time_embed_dim, False, learns)
        yield _Product(2 * base.time_embed_dim**2, learns, learns)
    yield _Product(4 * base.time_embed_dim * wide, learns, learns)
    out = video + (extra if times == 1 else 0)
    yield _Product(2 * out * wide * patch, True, learns)


def _width(base: TransformerConfig) -> int:
    return base.num_attention_heads * base.attention_head_dim
