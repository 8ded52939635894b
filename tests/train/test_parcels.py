"""Pieces of files and folders: they come back as they were, or not at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_training import folder_of_pictures

from srcli.errors import InputError
from srcli_train.checkpoint import load_checkpoint
from srcli_train.parcels import join, main, split


def _folder(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    (path / "last.pt").write_bytes(np.random.default_rng(0).bytes(100_000))
    (path / "sub" / "log.csv").write_text("update,loss\n")
    return path


def test_a_folder_comes_back_from_small_pieces(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "run")
    pieces = split(folder, tmp_path / "parcels", 30_000)
    assert [piece.size for piece in pieces[:-1]] == [30_000] * (len(pieces) - 1)
    back = join(tmp_path / "parcels", tmp_path / "there")
    assert back == tmp_path / "there" / "run"
    assert (back / "last.pt").read_bytes() == (folder / "last.pt").read_bytes()
    assert (back / "sub" / "log.csv").read_text() == "update,loss\n"
    assert list((tmp_path / "there").iterdir()) == [back]


def test_joining_again_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    for content in (b"old", b"new"):
        file.write_bytes(content)
        split(file, tmp_path / "parcels", 1000)
        assert join(tmp_path / "parcels", tmp_path / "there").read_bytes() == content
    assert len(list((tmp_path / "there").iterdir())) == 1


def test_missing_and_damaged_pieces_are_all_named(tmp_path: Path) -> None:
    split(_folder(tmp_path / "run"), tmp_path / "parcels", 30_000)
    (tmp_path / "parcels" / "parcel-000").unlink()
    damaged = tmp_path / "parcels" / "parcel-002"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="missing or damaged: parcel-000, parcel-002"):
        join(tmp_path / "parcels", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path / "run")
    assert main(["split", str(folder), str(tmp_path / "parcels"), "--mib", "0.03"]) == 0
    assert main(["join", str(tmp_path / "parcels"), str(tmp_path / "there")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "there" / "run")
    assert main(["join", str(tmp_path / "run"), str(tmp_path / "there")]) == 1
    assert "holds no parcel.json" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("timeout") is None, reason="the script needs coreutils' timeout")
def test_two_stretches_make_one_run(tmp_path: Path) -> None:
    """The second one begins on a machine that has nothing but what was brought."""
    root = Path(__file__).parents[2]
    (tmp_path / "there").mkdir()
    for folder in ("srcli", "train", "export"):
        (tmp_path / "there" / folder).symlink_to(root / folder)
    split(folder_of_pictures(tmp_path / "pictures"), tmp_path / "in" / "data", 30_000)
    what = ["--model", "edsr-baseline", "-s", "2", "--recipe", "fast", "--batch", "2", "--patch", "8"]
    for number in (1, 2):
        out = tmp_path / f"out{number}"
        command = ["sh", str(root / "train" / "stretch.sh"), str(tmp_path / "in"), str(out), "9", "run"]
        environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *what, "--updates", "2"],
            cwd=tmp_path / "there",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "there" / "stretch")
        shutil.copytree(out, tmp_path / "in" / "run", dirs_exist_ok=True)
    assert load_checkpoint(join(tmp_path / "out2", tmp_path / "back") / "last.pt").update == 2
