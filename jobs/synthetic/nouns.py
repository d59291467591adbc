"""Everything that a subject can be."""

from __future__ import annotations

from jobs.synthetic.built import BUILT
from jobs.synthetic.forms import Noun
from jobs.synthetic.turned import TURNED

NOUNS: tuple[Noun, ...] = (*TURNED, *BUILT)

BY_WORD = {noun.word: noun for noun in NOUNS}
