"""Numbers of a run file that have to lie somewhere: `load` says which one does not, and where."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Interval

Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Count = Annotated[int, Interval(ge=1)]
CountOrNone = Annotated[int, Interval(ge=0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Cosine = Annotated[float, Interval(ge=-1, le=1)]
