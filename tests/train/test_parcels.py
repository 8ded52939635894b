"""Pieces of files and folders: they come back as they were, or not at all."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tiny_training import folder_of_pictures

from srcli.errors import InputError, UsageError
from srcli_train import stretch
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.parcels import join, main, split

_ROOT = Path(__file__).parents[2]
_TINY = ["--model", "edsr-baseline", "-s", "2", "--set", "network.blocks=1", "--set", "network.features=8"]


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


def test_pieces_travel_a_range_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, there = _folder(tmp_path / "run"), tmp_path / "there"
    for first in ("0", "2", "4"):
        out = tmp_path / f"transfer-{first}"
        assert main(["split", str(folder), str(out), "--mib", "0.03", "--from", first, "--count", "2"]) == 0
        assert len(list(out.iterdir())) <= 3, "two pieces and the list"
        shutil.copytree(out, there, dirs_exist_ok=True)
        if first == "0":
            assert "2 are left: --from 2" in capsys.readouterr().out
            with pytest.raises(InputError, match="missing or damaged: parcel-002, parcel-003"):
                join(there, tmp_path / "early")
    assert "0 of 4 pieces" in capsys.readouterr().out
    assert (join(there, tmp_path / "back") / "last.pt").read_bytes() == (folder / "last.pt").read_bytes()


def test_what_is_missing_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stretch, "MODULES", ("json", "no_such_module", "neither_this"))
    assert stretch.main(["15", "4", "1"]) == 1
    said = capsys.readouterr().err
    assert "no_such_module" in said
    assert "neither_this" in said
    assert "json" not in said
    assert "PYTHONPATH" in said


def test_all_packages_that_training_declares_are_looked_for() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    declared = {d.split(">=")[0] for d in project["dependencies"] + project["optional-dependencies"]["train"]}
    modules = {"opencv-python-headless": "cv2"}
    assert {modules.get(name, name) for name in declared} <= set(stretch.MODULES)


def test_a_run_that_cannot_come_home_is_refused() -> None:
    """MDSR has 8.0 million weights; Adam keeps two numbers more of each, Muon one of most, a mean one."""
    weights = 8.0e6 * 4
    assert stretch.expected(["--model", "mdsr", "--device", "cuda"]) == pytest.approx(3 * weights, rel=0.01)
    fast = stretch.expected(["--model", "mdsr", "--recipe", "fast"])
    assert fast == pytest.approx(2 * weights, rel=0.02), "Adam has a second number of a few weights"
    averaged = stretch.expected(["--model", "mdsr", "--recipe", "fast", "--set", "average=0.999"])
    assert averaged - fast == pytest.approx(weights, rel=0.01)
    assert (
        stretch.expected(["--model", "mdsr", "--recipe", "fast", "--set", "schedule=trapezoid"]) == 2 * fast
    )
    with pytest.raises(UsageError, match="transfers: 2, and TRANSFERS is 1") as refused:
        stretch.check(15, 4, 1, ["--model", "mdsr"])
    assert "TRANSFERS=2" in refused.value.hint
    assert "transfers: 2" in stretch.check(15, 4, 2, ["--model", "mdsr"])


class _Elsewhere:
    """A machine that has the packages and what is brought, and forgets the rest between two stretches."""

    def __init__(self, home: Path) -> None:
        self.home, self.given = home, home.parent / "in"
        home.mkdir()
        for folder in ("srcli", "train", "export"):
            (home / folder).symlink_to(_ROOT / folder)

    def stretch(
        self, out: Path, minutes: float, changes: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.home / "stretch", ignore_errors=True)
        sizes = {"PIECE": "0.02", "COUNT": "2", "TRANSFERS": "99"}
        environment = (
            os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | sizes | (changes or {})
        )
        few = ["--recipe", "paper", "--set", "batch=2", "--set", "patch=8", "--updates", "10000000"]
        script = str(_ROOT / "train" / "stretch.sh")
        command = ["sh", script, str(self.given), str(out), str(minutes), "run", *_TINY, *few]
        return subprocess.run(
            [*command, "--device", "cpu"],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )


def _steps(checkpoint: Checkpoint) -> set[int]:
    """Updates that Adam remembers, over all weights."""
    return {int(state["step"]) for state in checkpoint.optimizer["adam"]["state"].values()}


@pytest.mark.skipif(shutil.which("timeout") is None, reason="the script needs coreutils' timeout")
def test_stretches_make_one_run(tmp_path: Path) -> None:
    """Brought, stopped by the limit, saved, carried home, brought again, gone on; each from nothing else.

    The limit is doubled until something could be saved, as how long Python needs to start is the machine's.
    """
    there = _Elsewhere(tmp_path / "there")
    for what in ("data", "valid"):
        split(folder_of_pictures(tmp_path / f"{what} here"), there.given / what, 30_000)
    nothing = there.stretch(tmp_path / "nothing", 0.005)
    assert nothing.returncode == 124, nothing.stderr
    assert "before its first checkpoint" in nothing.stderr
    assert not (tmp_path / "nothing").exists()
    minutes, updates = 0.15, [0]
    while len(updates) < 3:
        out = tmp_path / f"out{len(updates)}-{minutes}"
        done = there.stretch(out, minutes)
        if done.returncode == 124 and minutes < 4:
            minutes *= 2
            continue
        assert done.returncode == 0, done.stderr
        assert "4 training images, 4 for validation" in done.stderr + done.stdout
        assert sum(path.name.startswith("parcel-") for path in out.iterdir()) == 2
        rest = ["split", str(there.home / "stretch" / "run"), str(out), "--mib", "0.02", "--from", "2"]
        assert main(rest) == 0
        checkpoint = load_checkpoint(join(out, tmp_path / "back") / "last.pt")
        assert checkpoint.update > updates[-1]
        assert _steps(checkpoint) == {checkpoint.update}, "the optimizer did not come along"
        updates.append(checkpoint.update)
        shutil.rmtree(there.given / "run", ignore_errors=True)
        shutil.copytree(out, there.given / "run")
    size = (tmp_path / "back" / "run" / "last.pt").stat().st_size
    overhead = 40_000  # of some sixty small tensors in a file: names, alignment, random state
    assert size - overhead < stretch.expected(_TINY) < size
    files = {path.name for path in (tmp_path / "back" / "run").iterdir()}
    assert files == {"last.pt", "log.csv"}, "neither a second copy nor TensorBoard's pictures are carried"
    vain = there.stretch(tmp_path / "vain", 0.005)
    assert vain.returncode == 124, "it has a checkpoint, but the one that was brought"
    assert "before anything new was saved" in vain.stderr


def test_a_stretch_does_nothing_where_a_module_is_missing(tmp_path: Path) -> None:
    there = _Elsewhere(tmp_path / "there")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "simplejpeg.py").write_text("raise ImportError('for another machine')")
    done = there.stretch(tmp_path / "out", 1, {"PYTHONPATH": str(tmp_path / "broken")})
    assert done.returncode == 1
    assert "simplejpeg (for another machine)" in done.stderr
    assert not (there.home / "stretch").exists()
