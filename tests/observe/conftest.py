import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "deploy/grafana"))

from installation import Installation  # noqa: E402


@pytest.fixture
def install(tmp_path):
    """Makes an installation that lives as long as the test."""
    made = []

    def make(**settings):
        made.append(Installation(tmp_path, **settings))
        return made[-1].__enter__()

    yield make
    for each in made:
        each.__exit__()
