"""A disk of its own for every test of folder runs, and a folder for those of cluster runs."""

from pathlib import Path

import pytest
from folder_doubles import Disk, untouched

from srcli.io import pictures
from srcli.jobs import cluster_processes, cluster_run, plan


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.chdir(tmp_path)
    made = Disk()
    for name in ("probe", "read", "write"):
        monkeypatch.setattr(pictures, name, lambda *a, _name=name, **k: getattr(made, _name)(*a, **k))
    monkeypatch.setattr(plan, "unchanged", untouched)
    return made


@pytest.fixture
def cluster_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one, and cluster runs look around more often."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_processes, "_LOOK", 0.05)
    monkeypatch.setattr(cluster_run, "_GLANCE", 0.02)
