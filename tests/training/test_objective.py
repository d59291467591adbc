from typing import cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

from training.objective import noise_schedule, v_losses


def _oracle(snr_shift: float) -> CogVideoXDDIMScheduler:
    """The base model's own scheduler; its tables are fp64."""
    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=snr_shift,
    )


@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
def test_noise_and_v_are_the_base_model_s(snr_shift: float):
    generator = torch.Generator().manual_seed(0)
    times = torch.arange(1000)
    clean, noise = (
        torch.randn(1000, 2, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    schedule, oracle = noise_schedule(snr_shift), _oracle(snr_shift)
    noisy = schedule.noisy(clean.float(), noise.float(), times)
    v = schedule.velocity(clean.float(), noise.float(), times)
    assert noisy.dtype == v.dtype == torch.float32
    wanted_noisy = oracle.add_noise(clean, noise, cast(torch.IntTensor, times))
    wanted_v = oracle.get_velocity(clean, noise, cast(torch.IntTensor, times))
    torch.testing.assert_close(noisy.double(), wanted_noisy, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(v.double(), wanted_v, atol=1e-6, rtol=1e-6)


def test_the_last_timestep_is_noise_alone_and_the_first_is_not_clean():
    schedule = noise_schedule()
    assert schedule.alpha[999] == 0
    assert schedule.sigma[999] == 1
    assert 0.02 < schedule.sigma[0] < 0.04


def test_a_loss_per_sample_is_its_own_mean_square():
    said, wanted = torch.zeros(2, 2, 3, 2, 2), torch.ones(2, 2, 3, 2, 2)
    wanted[1] *= 3
    assert v_losses(said, wanted).tolist() == [1, 9]
    assert v_losses(said.bfloat16(), wanted).dtype == torch.float32
