"""What the base model is, what the adapter adds to it, and how videos are drawn from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from model.errors import ModelError

Backend = Literal["auto", "dense", "merged", "augmented"]
Kind = Literal["reference", "extra_frame"]
OWN = "own"
"""Of `EraeConfig.layers`."""


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """The sizes of a CogVideoX base; the names are diffusers' own, the defaults the 5B's.

    sample_width, sample_height: latent pixels; sample_frames: video frames, of the size that the
    positions were trained at.
    """

    num_layers: int = 42
    num_attention_heads: int = 48
    attention_head_dim: int = 64
    time_embed_dim: int = 512
    text_embed_dim: int = 4096
    max_text_seq_length: int = 226
    sample_width: int = 90
    sample_height: int = 60
    sample_frames: int = 49
    use_rotary_positional_embeddings: bool = True

    def keywords(self) -> dict[str, Any]:
        """What diffusers' CogVideoXTransformer3DModel is made with."""
        return asdict(self)


COGVIDEOX_5B = TransformerConfig()
COGVIDEOX_2B = TransformerConfig(
    num_layers=30, num_attention_heads=30, use_rotary_positional_embeddings=False
)
TINY = TransformerConfig(  # ours: the 5B's twin for 25 frames of 128x192 on two CPU cores
    num_layers=4,
    num_attention_heads=4,
    attention_head_dim=32,
    time_embed_dim=128,
    text_embed_dim=64,
    max_text_seq_length=64,
    sample_width=24,
    sample_height=16,
    sample_frames=25,
)


@dataclass(frozen=True, slots=True)
class TabConfig:
    """The time-aware bias tanh(M(t)), M(t) = -gamma*(2t/1000 - 1)^2 + epsilon (Eq. 6, 7).

    train, sample: where it acts. The abstract speaks of inference, section 6.1 and the ablation of
    learning; training without it and sampling with it is a mismatch, so it acts in both.
    """

    train: bool = True
    sample: bool = True
    gamma: float = 10.0  # the paper, Eq. 7
    epsilon: float = 0.1  # the paper, Eq. 7


@dataclass(frozen=True, slots=True)
class EraeConfig:
    """The entity's region R = A_e > threshold, and what it adds to the bias (Eq. 8).

    form: "add" is tanh(M) + b1*R (Eq. 6 and 8), "product" is tanh(M)*R (Algorithm 1, line 7);
    without an entity there is no R, and the bias is tanh(M) in both.
    layers: whose A_e of the previous step is averaged; "middle" is the middle third (14-27 of 42),
    else "first-last". "own": every layer makes R of its own A_e in the same step, which training
    can do as well. normalise: "minmax" clips to the percentiles and stretches to 0..1, per latent
    frame; "median" selects what is above twice the frame's median, and knows no threshold.
    """

    train: bool = False  # a region is of the previous step, and training has none; "own" is not
    sample: bool = True
    b1: float = 0.1  # the paper, section 4.3
    threshold: float = 0.1  # the paper, section 4.3
    form: Literal["add", "product"] = "add"
    layers: str = "middle"  # where MasaCtrl and DiTCtrl take their masks from
    normalise: Literal["minmax", "median"] = "minmax"
    low_percentile: float = 1.0  # ours: the paper's threshold needs a scale, and a peak spoils it
    high_percentile: float = 99.0

    def acts(self, sampling: bool) -> bool:
        """The switch for sampling, or that for training."""
        return self.sample if sampling else self.train

    def chosen_layers(self, num_layers: int) -> range:
        """The blocks whose A_e is averaged."""
        if self.layers == OWN:
            return range(num_layers)
        if self.layers == "middle":
            first, stop = num_layers // 3, max(2 * num_layers // 3, num_layers // 3 + 1)
            return range(first, stop)
        first, dash, last = self.layers.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal()):
            raise ModelError(
                f'erae.layers: found {self.layers!r}; wanted "middle", "own" or "first-last", like '
                '"14-27"'
            )
        if not int(first) <= int(last) < num_layers:
            raise ModelError(
                f"erae.layers: found {self.layers}; the base has layers 0-{num_layers - 1}; "
                "choose some of those"
            )
        return range(int(first), int(last) + 1)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The LoRA on reference tokens and how the reference meets the video.

    kind: "extra_frame" is the baseline of Table 2's first row (model/extra_frame.py), which knows
    rank, alpha and null_text alone. attention: "joint" is Eq. 4; "independent" is Algorithm 1, line
    3: reference queries see reference keys only. delta: the shift of the reference's position
    (t, h, w) in patches of the base's grid (Eq. 5); "-width" is (0, 0, -W), W the video's width
    there. reference_timestep: "zero" takes the
    reference for the clean picture that it is, "shared" gives it the video's t. bias_queries: Eq. 6
    writes Q = zW_Q; text that reads the reference unbiased leaks it into the video. null_text: the
    prompt of a drop and of guidance, T5("") or zeros. backend: how the biased softmax is computed,
    which changes its speed and its last bits; "auto" is "merged" on a GPU in bf16 or fp16, and
    "dense" elsewhere.
    """

    kind: Kind = "reference"
    rank: int = 128  # the paper, section 6.1
    alpha: float = 128.0  # ours: a scale of 1; the paper is silent
    attention: Literal["joint", "independent"] = "joint"
    delta: Literal["-width"] | tuple[int, int, int] = "-width"
    reference_timestep: Literal["zero", "shared"] = "zero"
    bias_queries: Literal["video+text", "video"] = "video+text"
    null_text: Literal["empty", "zeros"] = "empty"  # as diffusers samples
    backend: Backend = "auto"  # docs/decisions/014
    tab: TabConfig = field(default_factory=TabConfig)
    erae: EraeConfig = field(default_factory=EraeConfig)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ModelError(
                f"adapter: found rank {self.rank} and alpha {self.alpha}; wanted both above 0"
            )
        if self.kind == "extra_frame" and self.erae.train:
            raise ModelError(
                'adapter.erae.train: found true with kind = "extra_frame", which has no bias; set '
                "it to false"
            )


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How a video is drawn from noise.

    v = v(0,0) + g_ref * [v(0,r) - v(0,0)] + g_text * [v(c,r) - v(0,r)], with c the text and r the
    reference; v(0,0) is not computed where g_ref is 1.
    """

    steps: int = 50  # the paper, section 6.1
    text_guidance: float = 6.0  # CogVideoX's own
    reference_guidance: float = 1.0  # the paper names none: no extrapolation, two passes a step

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise ModelError(f"sampling: found steps {self.steps}; wanted 1 to 1000")


def switched(config: AdapterConfig, tab: bool, erae: bool) -> AdapterConfig:
    """An adapter's own settings, with what acts in sampling as it is wanted now.

    The backend that it was trained with may not run on this machine.
    """
    tabs, eraes = replace(config.tab, sample=tab), replace(config.erae, sample=erae)
    return replace(config, backend="auto", tab=tabs, erae=eraes)
