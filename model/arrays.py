"""The type of arrays whose shapes docstrings tell."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
