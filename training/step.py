"""One optimizer step: some forward and backward passes, one clipping, one update.

Shapes: B samples, T latent frames, C channels, H and W the latents' height and width, L text tokens
of width D, n references.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from training.objective import NoiseSchedule, v_losses
from training.world import World


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW at a constant rate. warmup_steps: over which the rate rises from 0 in a line."""

    learning_rate: float = 1e-5  # paper, 6.1
    weight_decay: float = 1e-2  # paper, 6.1
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0  # design/method.md: once per optimizer step
    warmup_steps: int = 0  # paper: a fixed rate

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"optimizer.{name}: found {getattr(self, name)}, wanted above 0")
        for name in ("weight_decay", "warmup_steps"):
            if not getattr(self, name) >= 0:
                raise InputError(f"optimizer.{name}: found {getattr(self, name)}, wanted 0 or more")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"optimizer.{name}: found {getattr(self, name)}, wanted 0 or more and below 1"
                )


class Network(Protocol):
    """What is trained: says v (B, T, C, H, W) of noisy latents.

    timestep: (B,); text: (B, L, D); reference: (B, n, C, H, W), or None: then it is left out. One
    that is trained with an entity also takes `entity`, (B, L) bool.
    """

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor | None,
        **entity: Tensor,
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Example:
    """One sample as it is trained on, in fp32.

    latents, noise: (T, C, H, W); text: (L, D); reference: (n, C, H, W), or None: left out. entity:
    (L,) bool, the text tokens of the subject, none in a dropped text; None where it is not wanted.
    """

    key: str
    latents: Tensor
    noise: Tensor
    timestep: int
    text: Tensor
    reference: Tensor | None
    entity: Tensor | None = None


class DivergedError(Exception):
    """A loss or a gradient is not a number any more: which step, which samples.

    norms: of the gradient of each trained weight, by name.
    """

    def __init__(
        self,
        text: str,
        loss: float = 0.0,
        norm: float = 0.0,
        norms: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(text)
        self.loss, self.norm, self.norms = loss, norm, dict(norms or {})


class Optimizer:
    """AdamW over named parameters, with clipping and a state that can be stored by name."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings) -> None:
        self.parameters = dict(parameters)
        self._settings = settings
        self._adamw = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = self._settings.warmup_steps
        return self._settings.learning_rate * min(1.0, (step + 1) / warm if warm else 1.0)

    def update(self, step: int) -> float:
        """Clips, updates, and clears the gradients. Returns their norm before clipping.

        Nothing is updated, clipped or cleared when that norm is not finite.
        """
        parameters = list(self.parameters.values())
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not math.isfinite(norm):
            return float(norm)
        nn.utils.clip_grads_with_norm_(parameters, self._settings.clip_norm, norm)
        for group in self._adamw.param_groups:
            group["lr"] = self.rate(step)
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return float(norm)

    def norms(self) -> dict[str, float]:
        """Of the gradient of each parameter that has one."""
        return {
            name: float(parameter.grad.norm())
            for name, parameter in self.parameters.items()
            if parameter.grad is not None
        }

    def state(self) -> dict[str, Tensor]:
        """Moments and counts as `<parameter>/<what>`; without those that were never updated."""
        return {
            f"{name}/{what}": tensor
            for name, parameter in self.parameters.items()
            for what, tensor in self._adamw.state.get(parameter, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts a stored state in place of this one. Raises KeyError for an unknown parameter."""
        numbers = {name: number for number, name in enumerate(self.parameters)}
        stored: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            name, _, what = key.rpartition("/")
            stored.setdefault(numbers[name], {})[what] = tensor
        self._adamw.load_state_dict({**self._adamw.state_dict(), "state": stored})


class Training:
    """A network and its optimizer, in one of the workers of a world.

    trained: the parameters that are updated, by name; all others stay as they are, and are nobody
    else's business: the workers exchange the gradients of these alone.
    """

    def __init__(
        self,
        network: Network,
        trained: Mapping[str, nn.Parameter],
        schedule: NoiseSchedule,
        settings: OptimizerSettings,
        world: World = World(),
    ) -> None:
        self.network, self.world = network, world
        self.optimizer = Optimizer(trained, settings)
        self._schedule = schedule
        self.device = next(iter(trained.values())).device

    def losses(self, examples: Sequence[Example]) -> Tensor:
        """(B,) v-losses; the noise is added in fp32, the network computes in what it likes."""
        device = self.device
        latents = torch.stack([example.latents for example in examples]).to(device)
        noise = torch.stack([example.noise for example in examples]).to(device)
        timesteps = torch.tensor([example.timestep for example in examples], device=device)
        text = torch.stack([example.text for example in examples]).to(device)
        references = [example.reference for example in examples if example.reference is not None]
        reference = torch.stack(references).to(device) if references else None
        entities = [example.entity for example in examples if example.entity is not None]
        entity = {"entity": torch.stack(entities).to(device)} if entities else {}
        noisy = self._schedule.noisy(latents, noise, timesteps)
        said = self.network(noisy, timesteps, text, reference, **entity)
        return v_losses(said, self._schedule.velocity(latents, noise, timesteps))

    def shared_losses(self, examples: Sequence[Example], batch: int) -> Tensor:
        """(B,) losses in fp64, on the CPU, of examples that every worker has.

        Each computes `batch` of them, so B is at most batch * workers.
        """
        losses = torch.zeros(len(examples), dtype=torch.float64)
        mine = slice(self.world.rank * batch, (self.world.rank + 1) * batch)
        if examples[mine]:
            losses[mine] = self.losses(examples[mine]).double().cpu()
        else:
            self.losses(examples[-1:])  # where the base is sharded all have to go along
        self.world.add([losses])
        return losses

    def step(self, number: int, batches: Sequence[Sequence[Example]]) -> tuple[float, float]:
        """Loss and gradient norm of one update, counted from 0, over all workers.

        batches: this worker's, one or more; every worker has as many samples. Every sample weighs
        the same, however they are cut into batches. Raises DivergedError, before the weights are
        touched, when the loss or the gradient is not finite.
        """
        keys = [example.key for batch in batches for example in batch]
        total = 0.0
        for batch in batches:
            share = self.losses(batch).sum() / (len(keys) * self.world.size)
            share.backward()
            total += float(share.detach())
        gradients = (parameter.grad for parameter in self.optimizer.parameters.values())
        self.world.add(gradient for gradient in gradients if gradient is not None)
        total = self.world.total(total)
        norm = self.optimizer.update(number)
        if not (math.isfinite(total) and math.isfinite(norm)):
            everyone = ", ".join(self.world.gather(", ".join(keys)))
            raise DivergedError(
                f"step {number + 1}: found the loss {total} and a gradient of norm {norm} on the "
                f"samples {everyone}; lower optimizer.learning_rate, or look at them",
                total,
                norm,
                self.optimizer.norms(),
            )
        return total, norm
