"""The biased softmax, every backend against one that is written out below in fp64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from model.errors import ModelError
from model.merge import attend, log_sum_exp, merge
from model.softmax import attention, augmented, chosen, dense_mask

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")]
)


@dataclass
class Case:
    """Two samples, three heads of 16, 70 queries and main keys, and 24 keys of each reference.

    That is, unless another size of the heads or number of main tokens is asked for.

    Each reference has its own bias, and one is hidden: of one sample from all queries, and of the
    other from one query.
    """

    q: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor
    grad: Tensor

    def __init__(
        self,
        num_references: int,
        dtype: torch.dtype,
        device: str = "cpu",
        num_main: int = 70,
        size: int = 16,
    ) -> None:
        generator = torch.Generator().manual_seed(num_references)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

        lengths = [num_main] + [24] * num_references
        self.q = 2 * normal(2, num_main, 3, size).transpose(1, 2)  # as the model's, heads outside
        self.keys = [normal(2, length, 3, size).transpose(1, 2) for length in lengths]
        self.values = [normal(2, length, 3, size).transpose(1, 2) for length in lengths]
        self.bias = normal(2, num_references, num_main).float()
        self.bias[1, 0], self.bias[0, -1, 5] = -torch.inf, -torch.inf
        self.grad = normal(2, num_main, 3, size).transpose(1, 2)

    def run(self, backend: Callable[["Case"], Tensor]) -> list[Tensor]:
        """The output, and the gradients of q, of all keys and of all values."""
        inputs = [self.q, *self.keys, *self.values]
        for one in inputs:
            one.requires_grad_()
        out = backend(self)
        return [out.detach(), *torch.autograd.grad(out, inputs, self.grad)]


def merged(case: Case) -> Tensor:
    groups = [attend(case.q, k, v) for k, v in zip(case.keys, case.values, strict=True)]
    return merge(case.q, groups, case.bias)


def dense(case: Case) -> Tensor:
    num_reference_tokens = 24 * case.bias.shape[1]
    mask = dense_mask(case.bias, num_reference_tokens, case.q.dtype)
    return attention(case.q, torch.cat(case.keys, 2), torch.cat(case.values, 2), mask)


def widened(case: Case) -> Tensor:
    num_reference_tokens = 24 * case.bias.shape[1]
    keys, values = torch.cat(case.keys, 2), torch.cat(case.values, 2)
    return augmented(case.q, keys, values, case.bias, num_reference_tokens)


def plain(case: Case) -> Tensor:
    return attention(case.q, torch.cat(case.keys, 2), torch.cat(case.values, 2))


def written_out(case: Case) -> Tensor:
    """In fp64; bias-free where `case.bias` is 0."""
    scale = case.q.shape[-1] ** -0.5
    logits = [case.q.double() @ k.double().mT * scale for k in case.keys]
    for i, bias in enumerate(case.bias.unbind(1)):
        logits[i + 1] = logits[i + 1] + bias[:, None, :, None]
    return torch.cat(logits, 3).softmax(3) @ torch.cat(case.values, 2).double()


def errors(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """Relative to the largest value of each."""
    return [
        ((a.double() - b.double()).abs().max() / b.abs().max()).item()
        for a, b in zip(found, wanted, strict=True)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
@pytest.mark.parametrize("num_references", [1, 3])
@pytest.mark.parametrize("backend", [merged, dense, widened])
def test_every_backend_is_the_softmax_and_has_its_gradients(
    backend: Any, num_references: int, dtype: torch.dtype, tolerance: float
) -> None:
    case = Case(num_references, dtype)
    assert max(errors(case.run(backend), case.run(written_out))) < tolerance


def test_the_merged_gradients_are_those_of_finite_differences() -> None:
    case = Case(2, torch.float64)
    q, k, v, k1, v1, k2, v2 = (
        x[:, :1, :4, :8].contiguous().requires_grad_()
        for x in (case.q, *(x for pair in zip(case.keys, case.values, strict=True) for x in pair))
    )
    bias = case.bias[:, :, 2:6]  # of which query 5, now the last, has a hidden reference

    def function(*x: Tensor) -> Tensor:
        return merge(x[0], [attend(x[0], *pair) for pair in (x[1:3], x[3:5], x[5:7])], bias)

    assert torch.autograd.gradcheck(function, (q, k, v, k1, v1, k2, v2))


def test_autograd_through_the_merge_would_be_wrong() -> None:
    """The kernel's log-sum-exp has no gradient, so the short way is right forward only."""

    def short(case: Case) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(case.q, case.keys[0], case.values[0])
        out_ref, lse_ref = flash(case.q, case.keys[1], case.values[1])
        weight = torch.sigmoid(lse_ref + case.bias - lse)[..., None]
        return out + weight * (out_ref - out)

    case = Case(1, torch.float64)
    wanted = case.run(written_out)
    out, q, k, k_ref, v, v_ref = errors(case.run(short), wanted)
    assert max(out, v, v_ref) < 1e-13
    assert min(q, k, k_ref) > 0.05
    assert max(errors(case.run(merged), wanted)) < 1e-13


@pytest.mark.parametrize("backend", [merged, dense, widened])
def test_a_hidden_reference_is_one_that_is_not_there(backend: Any) -> None:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        case = Case(1, dtype)
        case.bias.fill_(-torch.inf)
        out, q, k, k_ref, v, v_ref = case.run(backend)
        assert not k_ref.any()
        assert not v_ref.any()
        case.keys, case.values, case.bias = case.keys[:1], case.values[:1], case.bias[:, :0]
        assert max(errors([out, q, k, v], case.run(written_out))) < tolerance


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_in_bf16_the_bias_costs_no_more_than_a_plain_flash_loses(device: str) -> None:
    case = Case(2, torch.bfloat16, device)
    case.bias.zero_()
    floor = max(errors(case.run(plain), case.run(written_out)))
    case = Case(2, torch.bfloat16, device)
    wanted = case.run(written_out)
    assert floor > 1e-3
    for backend in (merged, dense, widened):
        assert max(errors(case.run(backend), wanted)) < 2 * floor


class Cudnn(TorchFunctionMode):
    """Notes at every softmax whether cuDNN's may be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[bool] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            self.allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", [dense, widened])
def test_cudnn_is_never_asked(backend: Any) -> None:
    """Its backward gives NaN where the test below looks."""
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with Cudnn() as seen:
        backend(Case(1, torch.float32))
    assert seen.allowed == [False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
def test_half_a_block_of_128_keys_under_a_mask_has_its_gradients() -> None:
    case = Case(1, torch.bfloat16, "cuda", num_main=168, size=64)  # 192 keys
    assert max(errors(case.run(dense), case.run(written_out))) < 0.02


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-4)])
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_log_sum_exp_is_that_of_the_logits(device: str, dtype: torch.dtype, atol: float) -> None:
    case = Case(1, dtype, device)
    wanted = (case.q.double() @ case.keys[0].double().mT / 4).logsumexp(-1)
    assert torch.allclose(log_sum_exp(case.q, case.keys[0]).double(), wanted, atol=atol)


@pytest.mark.parametrize("backend", [merged, dense, widened])
def test_the_kernel_takes_one_dtype_and_no_autocast(backend: Any) -> None:
    case = Case(1, torch.float32)
    with torch.autocast("cpu"), pytest.raises(ModelError, match="found autocast on"):
        backend(case)
    case.values = [v.bfloat16() for v in case.values]
    with pytest.raises(ModelError, match="wanted one dtype"):
        backend(case)


def test_merging_where_no_kernel_tells_its_log_sum_exp_is_one_line() -> None:
    q = torch.empty(1, 1, 4, 8, device="meta")
    with pytest.raises(ModelError, match='base_dtype = "bf16" or backend = "dense"'):
        attend(q, q, q)


def test_the_backend_is_merged_on_a_gpu_in_half_precision_and_dense_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, cpu, found = torch.device("cuda"), torch.device("cpu"), SimpleNamespace(major=8)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: found)
    assert chosen("auto", gpu, torch.bfloat16) == "merged"
    assert chosen("auto", gpu, torch.float32) == chosen("auto", cpu, torch.bfloat16) == "dense"
    assert chosen("augmented", gpu, torch.bfloat16) == "augmented"
    found.major = 7  # its half precision is too old for the flash kernel
    assert chosen("auto", gpu, torch.float16) == "dense"
