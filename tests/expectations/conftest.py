"""A lake that the tests of a module share: what is staged and audited in it once, many of them look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shared_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Point the settings at an empty lake for the tests of one module."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(folder / "lake"))
        yield folder
