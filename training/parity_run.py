"""Checks of the parity gate on the run: its noise, its loss, its files and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.errors import ModelError
from model.sampling import alpha_bars
from model.weights import base_folder, usual_snr_shift
from pipeline import storage
from pipeline.sample_tar import pack
from pipeline.shard_reader import ShardReader
from pipeline.shards import dataset_id
from training.checkpoint import Checkpoints, State, is_checkpoint, read_state, restore
from training.dataset import ENCODERS
from training.order import normal
from training.parity_case import Case, Finding
from training.parity_network import stirred
from training.step import Optimizer

_SETTINGS = "scheduler/scheduler_config.json"
_COPIED = 8
"""Weights that the optimizer's check copies: all of them would be a second adapter in memory."""


def noise(case: Case) -> Finding:
    """The signal's share at every timestep is that of the base's own scheduler."""
    scheduler, whose = _scheduler(case)
    bars = cast(Tensor, scheduler.alphas_cumprod).double()
    apart = float((alpha_bars(case.snr_shift) - bars).abs().max())
    theirs = scheduler.config["snr_shift_scale"]
    what = f"alpha-bar at snr_shift {case.snr_shift:g}, with diffusers' at {theirs:g} of {whose}"
    return Finding(what, apart, 1e-9)


def loss(case: Case) -> Finding:
    """The loss of the first batch is what diffusers' scheduler makes of it in fp64."""
    seen: dict[str, Tensor] = {}

    def look(module: nn.Module, given: tuple[Any, ...], said: Tensor) -> None:
        seen["noisy"], seen["said"] = given[0].double().cpu(), said.double().cpu()

    examples = case.examples()
    hook = case.model.register_forward_hook(look)
    try:
        with torch.no_grad():
            ours = case.training.losses(examples).double().cpu()
    finally:
        hook.remove()
    scheduler, _ = _scheduler(case)
    clean = torch.stack([example.latents for example in examples]).double()
    drawn = torch.stack([example.noise for example in examples]).double()
    times = cast(torch.IntTensor, torch.tensor([example.timestep for example in examples]))
    wanted = scheduler.get_velocity(cast(Any, clean), cast(Any, drawn), times)
    theirs = (seen["said"] - wanted).square().flatten(1).mean(1)
    added = (seen["noisy"] - scheduler.add_noise(clean, drawn, times)).abs().max()
    figure = max(float(((ours - theirs) / theirs).abs().max()), float(added))
    what = (
        f"noise and v-loss of {len(examples)} ({float(ours.mean()):.6f}), with diffusers' in fp64"
    )
    return Finding(what, figure, 1e-5)


def adapter_file(case: Case) -> Finding:
    """What is saved and loaded into other weights gives the same loss, bit for bit."""
    examples = case.examples()
    with _scratch(case) as folder, stirred(case.trained), torch.no_grad():
        before = case.training.losses(examples)
        case.weights.save(folder)
        for name, weight in case.trained.items():
            weight.copy_(torch.from_numpy(normal(f"scrambled/{name}", weight.shape)))
        case.weights.load(folder)
        after = case.training.losses(examples)
    same = torch.equal(before, after)
    what = "the loss of the first batch, with that of weights saved, scrambled and loaded"
    figure = float((before - after).abs().max())
    return Finding(what, figure if same else max(figure, 5e-324), 0.0)


def optimizer_state(case: Case) -> Finding:
    """An update after a checkpoint is the one that would have come without it. Of a copy."""
    names = list(case.trained)[:_COPIED]
    kept = {name: nn.Parameter(case.trained[name].detach().clone()) for name in names}
    ours, weights = Optimizer(kept, case.optimizer), _Copies(kept)
    _update(ours, 0)
    other = {name: nn.Parameter(torch.zeros_like(weight)) for name, weight in kept.items()}
    with _scratch(case) as folder:
        done = Checkpoints(folder, 1).save(State(1, 0, {}, {}), weights, ours.state())
        resumed = Optimizer(other, case.optimizer)
        restore(done, {}, _Copies(other), resumed.restore)
    _update(ours, 1)
    _update(resumed, 1)
    different = sum(not torch.equal(kept[name], other[name]) for name in names)
    what = f"the next update of {len(names)} weights, with that after a checkpoint"
    return Finding(what, different, 0.0)


def dataset(case: Case) -> Finding:
    """A sample that is read and packed again is the bytes that the index names."""
    url = case.dataset.url
    reader = ShardReader(url)
    if not dataset_id(url) == reader.dataset_id == case.dataset.dataset_id:
        raise ModelError(f"{url}: its index has been written anew since this run opened it")
    different = 0
    numbers = sorted({0, len(reader) // 2, len(reader) - 1})
    for number in numbers:
        row = reader.index.slice(number, 1).to_pylist()[0]
        key, members = reader[number]
        packed = pack(key, members)[: row["size"]]
        different += hashlib.sha256(packed).hexdigest() != row["sha256"]
    what = f"{len(numbers)} samples of dataset {reader.dataset_id[:12]}, read and packed again"
    return Finding(f"{what}; {_encoders(case)}", different, 0.0)


def _scheduler(case: Case) -> tuple[CogVideoXDDIMScheduler, str]:
    """The base's own, and where it is from."""
    if case.from_scratch:
        return _known(case.snr_shift), "a base that is trained with it"
    folder = storage.local(case.base)
    if folder is not None and is_checkpoint(folder):
        return _known(read_state(folder).settings["snr_shift"]), "the base's own training"
    place = base_folder(case.base).parent / _SETTINGS
    if place.is_file():
        scheduler = CogVideoXDDIMScheduler.from_pretrained(place.parent)
        return cast(CogVideoXDDIMScheduler, scheduler), f"{case.base}/{_SETTINGS}"
    config = case.model.transformer.config
    kind = "5B" if config["use_rotary_positional_embeddings"] else "2B"
    whose = f"the {kind}, whose places the base has, for it has no scheduler"
    return _known(usual_snr_shift(config)), whose


def _known(snr_shift: float) -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=snr_shift,
    )


def _encoders(case: Case) -> str:
    """What is known of whether the latents are the base's. Raises ModelError."""
    folder = storage.local(case.base)
    made_with = case.dataset.made_with
    if folder is None or not is_checkpoint(folder):
        return f"latents of the codec {made_with['codec'][:12]}, which a base does not name"
    known = read_state(folder).settings
    for what in ENCODERS:
        if known[f"latents.{what}"] != made_with[what]:
            raise ModelError(f"the base was trained on another {what} than these latents are of")
    return "latents of the base's own encoders"


@contextmanager
def _scratch(case: Case) -> Iterator[Path]:
    """A folder beside the checkpoints, whose disk has to hold as much anyway."""
    case.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".parity-", dir=case.folder) as place:
        yield Path(place)


@dataclass(frozen=True, slots=True)
class _Copies:
    """Some weights in a file of their own."""

    copies: Mapping[str, nn.Parameter]

    def save(self, folder: Path) -> None:
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.copies.items()}
        save_file(tensors, folder / "copies.safetensors")

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        for name, tensor in load_file(folder / "copies.safetensors").items():
            self.copies[name].copy_(tensor)


def _update(optimizer: Optimizer, step: int) -> None:
    """With gradients that belong to the step."""
    for name, weight in optimizer.parameters.items():
        gradient = torch.from_numpy(normal(f"gradient/{step}/{name}", weight.shape))
        weight.grad = gradient.to(weight.device, weight.dtype)
    optimizer.update(step)
