"""The scripts for a GPU, without one: what they would run, and what is left when a part fails."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from srcli.benchmark import subjects
from srcli.benchmark.subjects import Request
from srcli.cli.app import main
from srcli.errors import UsageError

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "gpu"
sys.path.append(str(ROOT / "benchmarks"))

import pipeline  # noqa: E402
import side_by_side  # noqa: E402
import training  # noqa: E402

_PYTHON = """#!{python}
import json, sys, time
from pathlib import Path

words = sys.argv[1:]
with Path({log!r}).open("a") as log:
    log.write(json.dumps(words) + "\\n")
if "untrained.py" in words[0]:
    for name in ("edsr", "mdsr-80"):
        Path(words[1], name + "-untrained-x2.onnx").write_text("")
if "{dying}" in " ".join(words):
    sys.exit(134)
if "{slow}" in " ".join(words):
    time.sleep(60)
for option, value in zip(words, words[1:]):
    if option in ("--json", "--out"):
        Path(value).write_text("figures")
print("nothing" if "{skipping}" in " ".join(words) else "3 passed, 1 skipped in 1.0s")
"""


class Press:
    """Runs a script with a Python that does nothing but keep what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"

    def __call__(
        self,
        script: str,
        *parts: str,
        dying: str = "-",
        slow: str = "-",
        skipping: str = "-",
        limit: int = 570,
    ) -> subprocess.CompletedProcess[str]:
        stand_in = self.folder / "python"
        never = {"dying": dying, "slow": slow, "skipping": skipping}
        words = {name: word if word != "-" else f"no {name}" for name, word in never.items()}
        stand_in.write_text(_PYTHON.format(python=sys.executable, log=str(self.log), **words))
        stand_in.chmod(0o755)
        environment = {**os.environ, "PYTHON": str(stand_in), "SECONDS_IN_ALL": str(limit)}
        command = ["sh", str(SCRIPTS / script), str(self.folder / "out"), *parts]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    @property
    def commands(self) -> list[list[str]]:
        """What Python was asked, the look at what is there left out."""
        return [json.loads(line) for line in self.log.read_text().splitlines()][1:]

    def kept(self, archive: str) -> set[str]:
        """Names in the only file that comes back."""
        assert [path.name for path in (self.folder / "out").iterdir()] == [archive]
        with tarfile.open(self.folder / "out" / archive) as files:
            return {Path(name).name for name in files.getnames()} - {"", "."}


@pytest.fixture
def press(tmp_path: Path) -> Press:
    return Press(tmp_path)


def test_measure_runs_every_part_into_one_archive(press: Press) -> None:
    done = press("measure.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(press.commands) == 11
    figures = {name for name in press.kept("results.tar.gz") if name.endswith(".json")}
    backends = ("torch", "onnxruntime", "tensorrt")
    wanted = {f"{part}-{backend}.json" for part in ("engines", "large") for backend in backends}
    wanted |= {f"pipeline-{backend}.json" for backend in backends[1:]} | {
        "side-by-side.json",
        "training.json",
    }
    assert figures == wanted
    last = [" ".join(command) for command in press.commands[-3:]]
    assert all("tensorrt" in command for command in last), "what may end the process comes last"
    assert not any("tensorrt" in " ".join(command) for command in press.commands[:-3])


def test_every_command_of_measure_is_parsed(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by the parser that will read it."""
    requests = []

    def keep(request: Request) -> None:
        requests.append(request)
        raise UsageError("enough")

    monkeypatch.setattr(subjects, "resolve", keep)
    parsers: dict[str, Callable[[list[str]], Any]] = {
        "benchmarks/pipeline.py": pipeline._parse,
        "benchmarks/side_by_side.py": side_by_side._parse,
        "benchmarks/training.py": training._parse,
    }
    press("measure.sh")
    for command in press.commands:
        if command[:2] == ["-m", "srcli"]:
            assert main(command[2:]) == 2
        elif command[0] in parsers:
            parsers[command[0]](command[1:])
        else:
            assert Path(command[0]).name == "untrained.py"
    assert len(requests) == 6
    assert {(r.device, r.precisions, r.tiles) for r in requests} == {("cuda", ("fp16",), (384,))}
    assert {size for request in requests for size in request.sizes} == {384, 720, 1440, 3464}


def test_a_crashing_part_leaves_the_others(press: Press) -> None:
    done = press("measure.sh", dying="--backend onnxruntime")
    assert done.returncode == 1
    assert len(press.commands) == 11
    assert "engines-onnxruntime: failed with 134" in done.stdout
    assert {"engines-torch.json", "engines-tensorrt.json"} <= press.kept("results.tar.gz")


def test_parts_end_when_the_time_is_over(press: Press) -> None:
    done = press("measure.sh", "engines-torch", "training", slow="--backend torch", limit=9)
    assert done.returncode == 1
    assert "engines-torch: stopped after" in done.stdout
    assert "training: left out" in done.stdout
    assert press.kept("results.tar.gz") == {"engines-torch.txt"}


def test_prove_runs_every_file_with_gpu_tests(press: Press) -> None:
    done = press("prove.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = [word for command in press.commands for word in command if word.endswith(".py")]
    marked = {str(p.relative_to(ROOT)) for p in ROOT.glob("tests/*/test_*.py") if _is_marked(p)}
    assert set(tests) == marked, "every file with a test for a GPU, and no other"
    assert len(marked) >= 4
    assert "tensorrt" in press.commands[-1]
    assert press.kept("proof.tar.gz") == {
        f"{part}.txt" for part in ("doctor", "torch", "onnxruntime", "training", "tensorrt")
    }


def _is_marked(path: Path) -> bool:
    return "pytest.mark." + "gpu" in path.read_text()


def test_a_part_with_only_skipped_tests_fails(press: Press) -> None:
    done = press("prove.sh", "torch", "tensorrt", skipping="-k tensorrt")
    assert done.returncode == 1
    assert "tensorrt: nothing is proven" in done.stdout
    assert "torch: nothing" not in done.stdout
    assert len(press.commands) == 2


def test_missing_packages_end_the_script_at_once(press: Press) -> None:
    done = press("measure.sh", dying="preflight.py")
    assert done.returncode == 2
    assert press.commands == []


@pytest.fixture(scope="module")
def preflight() -> ModuleType:
    return _script("preflight")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_missing_here(preflight: ModuleType) -> None:
    assert preflight.missing(["numpy", "cv2", "simplejpeg"]) == {}


def test_what_is_missing_is_named_with_its_wheels(
    preflight: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    monkeypatch.delattr(cv2, "imencodeWithMetadata")
    monkeypatch.setattr(
        preflight, "NEEDED", {"prove": {k: preflight._SHARED[k] for k in ("numpy", "cv2", "simplejpeg")}}
    )
    assert preflight.main(["prove"]) == 2
    said = capsys.readouterr().err
    assert "missing: simplejpeg: " in said
    assert "missing: cv2: " in said
    assert "imencodeWithMetadata" in said
    assert "'opencv-python-headless>=5.0' 'simplejpeg>=1.8'" in said
    assert "numpy>=" not in said


def test_named_wheels_match_the_project_file(preflight: ModuleType) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    wheels = {wheel for needed in preflight.NEEDED.values() for wheel in needed.values()}
    for wheel in wheels - {"onnxruntime-gpu>=1.22"}:
        assert f'"{wheel}"' in project
    assert '"onnxruntime-gpu[cuda,cudnn]>=1.22' in project


def test_untrained_networks_run(tmp_path: Path) -> None:
    """In small: the large ones take minutes on a CPU."""
    import numpy as np

    from srcli import Upscaler
    from srcli_train.networks import NetworkSpec

    untrained = _script("untrained")
    small = NetworkSpec("small", "mdsr", blocks=1, features=8, scales=(2, 3, 4))
    path = untrained.export(small, tmp_path)
    upscaler = Upscaler(path, 2, precision="fp32", device="cpu")
    assert upscaler(np.full((20, 24, 3), 99, np.uint8)).shape == (40, 48, 3)
    assert (upscaler.spec.name, upscaler.spec.macs > 0) == ("small", True)
    assert untrained.PRESETS == ("edsr", "mdsr-80")


def test_a_training_goes_on_from_the_pieces_it_left(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    for folder, count in (("train", 4), ("valid", 1)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            picture = np.random.default_rng(number).integers(0, 256, (96, 96, 3), np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), picture)
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHON": sys.executable, "TRY": "1"}
    command = ["sh", str(SCRIPTS / "train.sh"), "edsr", str(tmp_path), str(out)]
    for said in ("update 3", "This run is finished: 3 updates"):
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (run.returncode, said in run.stdout + run.stderr) == (0, True), run.stderr
        assert [path.name for path in out.iterdir()] == ["edsr.tar.aa"]
    with tarfile.open(out / "edsr.tar.aa") as files:
        assert {"edsr/last.pt", "edsr/log.csv"} <= set(files.getnames())


def test_a_network_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    command = ["sh", str(SCRIPTS / "train.sh"), "vdsr", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (2, "No network vdsr to train.\n")
