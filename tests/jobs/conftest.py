"""A disk of its own for every test of the folder pipeline."""

from pathlib import Path

import pytest
from folder_doubles import Disk

from srcli.io import pictures


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.chdir(tmp_path)
    made = Disk()
    for name in ("probe", "read", "use_up"):
        monkeypatch.setattr(pictures, name, lambda *a, _name=name, **k: getattr(made, _name)(*a, **k))
    return made
