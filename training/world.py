"""Who we are among the workers of one training; a process that nobody launched is all of them.

What workers have to agree on goes through here, so that they stop at the same step together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from model.errors import ModelError
from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class World:
    """One of `size` workers; the one of rank 0 leads: it alone writes files and talks."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each by its sum over all workers, the same bits on every one.

        Tensor by tensor, in the order given: which worker's part is added first then depends on
        nothing but the world's size (docs/decisions/027).
        """
        if self.size == 1:
            return
        for tensor in tensors:
            there = tensor.to(self.device)
            dist.all_reduce(there)
            if there is not tensor:
                tensor.copy_(there)

    def total(self, number: float) -> float:
        """The sum over all workers, in fp64."""
        summed = torch.tensor(number, dtype=torch.float64)
        self.add([summed])
        return float(summed)

    def highest(self, number: int) -> int:
        """The largest that any worker has."""
        if self.size == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def same(self, number: int) -> bool:
        """Whether all workers have this number."""
        return self.highest(number) == -self.highest(-number)

    def gather(self, text: str) -> list[str]:
        """What every worker says, by rank."""
        if self.size == 1:
            return [text]
        said = [""] * self.size
        dist.all_gather_object(said, text)
        return said

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one worker cannot do, none goes on from: all raise the InputError of the first.

        Inside the block nothing else may be agreed on.
        """
        failed: InputError | ModelError | None = None
        try:
            yield
        except (InputError, ModelError) as error:
            failed = error
        if self.highest(failed is not None):
            said = self.gather("" if failed is None else str(failed))
            raise InputError(next(filter(None, said))) from failed
