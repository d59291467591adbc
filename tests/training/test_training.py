"""What a training does to its weights, and when it refuses to go on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_training import SmallNetwork, SmallSamples, quiet, small_trainer
from torch import nn

from pipeline.errors import InputError
from training.course import Course, LoopSettings
from training.dataset import Latents
from training.held_out import HeldOut, HeldOutSettings
from training.metrics import read_metrics
from training.objective import noise_schedule
from training.step import DivergedError, Example, OptimizerSettings, Training

LOOP = LoopSettings(steps=6, global_batch=4, batch=2, checkpoint_every=2, keep=2)


def _never() -> bool:
    return False


def test_only_what_is_trained_changes(tmp_path: Path):
    network, fresh = SmallNetwork(), SmallNetwork()
    small_trainer(tmp_path, LOOP, network=network).run(_never, quiet)
    before, after = fresh.state_dict(), network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"adapter.weight"}


def test_the_reference_comes_to_be_used(tmp_path: Path):
    loop = LoopSettings(steps=150, global_batch=8, batch=8, checkpoint_every=1000, text_drop=0.0)
    network = SmallNetwork()
    small_trainer(tmp_path / "base", loop, adapter=False, network=network).run(_never, quiet)
    small_trainer(tmp_path / "adapter", loop, network=network).run(_never, quiet)
    base = read_metrics(tmp_path / "base" / "metrics.jsonl")
    first, *_, last = read_metrics(tmp_path / "adapter" / "metrics.jsonl")
    assert base[-1]["held_out_none"] < 0.95 * base[0]["held_out_none"]
    assert "held_out_right" not in base[-1]
    assert last["held_out_none"] == first["held_out_none"] == base[-1]["held_out_none"]
    assert last["held_out_right"] < 0.9 * last["held_out_shuffled"]
    assert last["held_out_right"] < 0.9 * last["held_out_none"]


def test_the_last_checkpoints_are_kept(tmp_path: Path):
    report = small_trainer(tmp_path, LOOP).run(_never, quiet)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]
    assert report.checkpoint == tmp_path / "checkpoints" / names[-1]


def test_every_so_many_steps_a_checkpoint_stays_for_ever(tmp_path: Path):
    loop = replace(LOOP, steps=7, checkpoint_every=2, keep=1, keep_every=3)
    small_trainer(tmp_path, loop).run(_never, quiet)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000006", "step-00000007"]


def test_a_checkpoint_of_another_config_is_refused_by_its_key(tmp_path: Path):
    small_trainer(tmp_path, LOOP, rate=1e-2).run(_never, quiet)
    other = small_trainer(tmp_path, replace(LOOP, steps=9), rate=2e-2)
    with pytest.raises(
        InputError, match=r"step-00000006: .* optimizer.learning_rate = 0.01, the run 0.02; "
    ):
        other.run(_never, quiet)


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    report = small_trainer(tmp_path, LOOP).run(_never, quiet)
    assert report.checkpoint is not None
    (report.checkpoint / "optimizer.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="step-00000006: damaged checkpoint"):
        small_trainer(tmp_path, LOOP).run(_never, quiet)


def test_a_copy_of_a_checkpoint_is_left_alone(tmp_path: Path):
    report = small_trainer(tmp_path, LOOP).run(_never, quiet)
    assert report.checkpoint is not None
    copy = report.checkpoint.with_name(f"{report.checkpoint.name}-good")
    shutil.copytree(report.checkpoint, copy)
    report = small_trainer(tmp_path, replace(LOOP, steps=12)).run(_never, quiet)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [copy.name, "step-00000010", "step-00000012"]


def test_a_line_of_the_metrics_that_cannot_be_read_is_named(tmp_path: Path):
    small_trainer(tmp_path, LOOP).run(_never, quiet)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('{"step": 3', '"step": 3'))
    with pytest.raises(InputError, match=r"metrics.jsonl: line 4: damaged: .*; remove that line"):
        small_trainer(tmp_path, replace(LOOP, steps=8)).run(_never, quiet)


class _Torn(SmallSamples):
    """Samples that cannot be read any more after a while."""

    left = 40

    def __getitem__(self, number: int) -> Latents:
        self.left -= 1
        if self.left < 0:
            raise InputError("damaged latents")
        return super().__getitem__(number)


def test_a_sample_that_cannot_be_read_costs_no_step_that_was_done(tmp_path: Path):
    loop = replace(LOOP, steps=50, checkpoint_every=1000)
    with pytest.raises(InputError, match="damaged latents"):
        small_trainer(tmp_path, loop, samples=_Torn()).run(_never, quiet)
    done = read_metrics(tmp_path / "metrics.jsonl")[-1]["step"]
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert done > 0
    assert saved.name == f"step-{done:08d}"


def test_a_bit_that_flips_in_a_checkpoint_is_noticed(tmp_path: Path):
    report = small_trainer(tmp_path, LOOP).run(_never, quiet)
    assert report.checkpoint is not None
    file = report.checkpoint / "w.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged checkpoint: w\.safetensors is not what was"):
        small_trainer(tmp_path, LOOP).run(_never, quiet)


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path):
    report = small_trainer(tmp_path, LOOP).run(_never, quiet)
    assert report.checkpoint is not None
    files = {path.name for path in report.checkpoint.iterdir()}
    assert files == {"w.safetensors", "optimizer.safetensors", "state.json"}
    with safe_open(report.checkpoint / "optimizer.safetensors", "pt") as state:
        wanted = {f"adapter.weight/{what}" for what in ("step", "exp_avg", "exp_avg_sq")}
        assert set(state.keys()) == wanted


class _Sick(SmallNetwork):
    """Says nothing sensible from its third step on."""

    steps = 0

    def forward(self, latents, timestep, text, reference):
        said = super().forward(latents, timestep, text, reference)
        self.steps += torch.is_grad_enabled()
        return said * float("nan") if self.steps > 6 else said


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples(tmp_path: Path):
    network = _Sick()
    trainer = small_trainer(tmp_path, replace(LOOP, steps=20), network=network)
    with pytest.raises(DivergedError, match=r"step 4: found the loss nan .* samples sample \d+, "):
        trainer.run(_never, quiet)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())
    assert (tmp_path / "checkpoints" / "step-00000002").exists()


class _Moving(SmallNetwork):
    """A base that changes behind the trainer's back."""

    def forward(self, latents, timestep, text, reference):
        with torch.no_grad():
            self.base.bias.add_(0.01)
        return super().forward(latents, timestep, text, reference)


def test_a_loss_without_reference_that_moves_is_an_alarm(tmp_path: Path):
    with pytest.raises(DivergedError, match="the loss without a reference was"):
        small_trainer(tmp_path, LOOP, network=_Moving()).run(_never, quiet)


def test_a_step_equals_torch_s_own_loop_on_the_whole_batch():
    def examples():
        generator = torch.Generator().manual_seed(1)
        for number in range(4):
            latents, noise = (torch.randn(2, 4, 2, 3, generator=generator) for _ in range(2))
            text = torch.randn(5, 8, generator=generator)
            yield Example(f"{number}", latents, noise, 300 * number, text, latents[:1])

    settings = OptimizerSettings(learning_rate=1e-2, clip_norm=0.05, warmup_steps=4)
    ours, plain = SmallNetwork(), SmallNetwork()
    training = Training(ours, dict(ours.named_parameters()), noise_schedule(), settings)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=1e-2)
    batch = list(examples())
    x0, eps = (torch.stack([getattr(e, k) for e in batch]) for k in ("latents", "noise"))
    times = torch.tensor([e.timestep for e in batch])
    text = torch.stack([e.text for e in batch])
    alpha, sigma = (
        table[times].view(-1, 1, 1, 1, 1)
        for table in (noise_schedule().alpha, noise_schedule().sigma)
    )
    for step in range(3):
        loss, norm = training.step(step, [batch[:2], batch[2:]])
        said = plain(alpha * x0 + sigma * eps, times, text, x0[:, :1])
        wanted = nn.functional.mse_loss(said, alpha * eps - sigma * x0)
        adamw.zero_grad()
        wanted.backward()
        wanted_norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        adamw.param_groups[0]["lr"] = 1e-2 * (step + 1) / 4
        adamw.step()
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
        assert norm == pytest.approx(float(wanted_norm), rel=1e-4)
        assert norm > 0.05
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_the_entity_goes_along_but_not_with_a_dropped_text():
    loop, null_text = replace(LOOP, text_drop=0.5), torch.zeros(5, 8)
    held = HeldOut([], [], HeldOutSettings(), 0)
    course = Course(SmallSamples(), range(40), held, null_text, with_reference=True)
    assert course.example(loop, 0).entity is None
    told = replace(course, with_entity=True)
    dropped = 0
    for example in (told.example(loop, position) for position in range(20)):
        assert example.entity is not None
        without_text = torch.equal(example.text, null_text)
        assert example.entity.tolist() == [False, not without_text, False, False, False]
        dropped += without_text
    assert 0 < dropped < 20
