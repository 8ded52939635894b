"""A disk of its own for every test of folder runs."""

from pathlib import Path

import pytest
from folder_doubles import Disk, untouched

from srcli.io import pictures
from srcli.jobs import plan


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.chdir(tmp_path)
    made = Disk()
    for name in ("probe", "read", "write"):
        monkeypatch.setattr(pictures, name, lambda *a, _name=name, **k: getattr(made, _name)(*a, **k))
    monkeypatch.setattr(plan, "unchanged", untouched)
    return made
