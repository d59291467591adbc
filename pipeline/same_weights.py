"""The facts of one folder come from the same weights: a name outlives what it stands for."""

from __future__ import annotations

import json

from pipeline import storage
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.stage import Stage
from pipeline.weights import identity


def keep_to_the_same(ledger: Ledger, stage: Stage) -> None:
    """Looks for what this stage loads, and holds it against what measured before.

    `weights.json` beside the stage's parts says what that was; the first to measure there writes
    it. It is not in the fingerprint: facts are read on machines that have no weights. Raises
    InputError when weights are missing, or are others.
    """
    used = stage.weights()
    if not used:
        return
    found = {
        weights.setting: {
            "name": weights.name,
            "revision": weights.revision,
            "identity": identity(weights),
        }
        for weights in used
    }
    note = storage.join(ledger.folder(stage.name), "weights.json")
    if not (ledger.has_parts(stage.name) and storage.exists(note)):
        storage.write(note, json.dumps(found, indent=1).encode())
        return
    before = json.loads(storage.read(note))
    for setting, now in found.items():
        earlier = before.get(setting, now)["identity"]
        if earlier != now["identity"]:
            raise InputError(
                f"{setting}: '{now['name']}' is now {now['identity'][:12]}, and was "
                f"{earlier[:12]} when clips were measured ({note}); wanted the same: put those "
                "back, or name these by another revision, folder or file name, and all clips are "
                "measured anew"
            )
