"""Whoever ends a run of these tests early gets the ends of their fixtures, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from interrupts import pytest_configure  # noqa: E402  (after the path is set)

__all__ = ["pytest_configure"]
