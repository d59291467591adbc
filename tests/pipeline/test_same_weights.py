"""A folder of facts comes from one set of weights, whatever a name stands for later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import toys

from pipeline.clip import Measurement
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.same_weights import keep_to_the_same
from pipeline.weights import Weights


class Loaded(toys.Length):
    """A stage that loads a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def weights(self) -> Sequence[Weights]:
        return (Weights(str(self._folder), "length.model"),)


def test_weights_that_were_exchanged_are_refused_once_they_measured(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    stage = Loaded(tmp_path / "model")
    ledger = Ledger(str(tmp_path / "facts"), [stage])

    def use(content: bytes) -> None:
        (tmp_path / "model" / "model.safetensors").write_bytes(content)
        keep_to_the_same(ledger, stage)

    use(b"never measured with")
    use(b"first")
    ledger.append({"length": [("a" * 16, Measurement({"letters": 3}))]})
    use(b"first")
    with pytest.raises(InputError, match=r"^length\.model: .* is now \w{12}, and was \w{12} when"):
        use(b"other")
    use(b"first")
