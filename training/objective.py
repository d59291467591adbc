"""The base model's diffusion process and what the network is to say: v, in fp32.

Shapes: B samples, T latent frames, C channels, H and W the latents' height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.sampling import alpha_bars


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """x_t = alpha[t] * x_0 + sigma[t] * noise; alpha, sigma: (1000,) fp32, alpha^2 + sigma^2 = 1.

    alpha is exactly 0 at t = 999: there is no formula by the predicted noise, nor by the SNR.
    """

    alpha: Tensor
    sigma: Tensor

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of latents (B, T, C, H, W), with one timestep per sample (B,)."""
        return _at(self.alpha, timesteps) * latents + _at(self.sigma, timesteps) * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is to say: v = alpha * noise - sigma * x_0."""
        return _at(self.alpha, timesteps) * noise - _at(self.sigma, timesteps) * latents


def noise_schedule(snr_shift: float = 1.0) -> NoiseSchedule:
    """The roots of the sampler's own table, taken in fp64 and rounded once: in bf16 the first
    timesteps would add no noise at all. snr_shift: 1.0 is CogVideoX-5B's, 3.0 the 2B's.
    """
    bars = alpha_bars(snr_shift)
    return NoiseSchedule(bars.sqrt().float(), (1.0 - bars).sqrt().float())


def v_losses(said: Tensor, wanted: Tensor) -> Tensor:
    """(B,) mean squared error of each sample, in fp32; said, wanted: (B, T, C, H, W)."""
    return (said.float() - wanted).square().mean(dim=(1, 2, 3, 4))


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    return table.to(timesteps.device)[timesteps].view(-1, 1, 1, 1, 1)
