"""How much the log says of each of many experiments."""

from __future__ import annotations

import logging
from collections.abc import Sequence

#: So many are told of one by one: a thousand stills do not make a thousand lines.
DETAILED = 20


def level_of(number: int) -> int:
    """Level of messages about the experiment (or mask, ...) of a number, from 0: DEBUG beyond the first ones."""
    return logging.INFO if number < DETAILED else logging.DEBUG


def experiments_name(numbers: Sequence[int]) -> str:
    """Short name of experiments by their numbers, e.g. ``experiments 0, 1, ... (1000 of them)``."""
    named = ", ".join(str(number) for number in numbers[:3])
    if len(numbers) > 3:
        named += f", ... ({len(numbers)} of them)"
    return f"experiment{'s' * (len(numbers) > 1)} {named}"
