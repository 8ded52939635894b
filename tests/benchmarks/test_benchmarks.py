"""The benchmark scripts still run, on tiny networks, and their figures mean what they say."""

import json
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_exported import exported

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import before_after  # noqa: E402
import common  # noqa: E402
import contenders  # noqa: E402
import pictures  # noqa: E402
import pipeline  # noqa: E402
import plot_training  # noqa: E402
import quality  # noqa: E402
import report  # noqa: E402
import speed  # noqa: E402
import stages  # noqa: E402
import training  # noqa: E402
from srcli.backends.base import Concurrent, Uint8Engine  # noqa: E402
from srcli.benchmark.rounds import Taken  # noqa: E402
from srcli.io import pictures as images  # noqa: E402
from srcli.models.catalog import resolve  # noqa: E402
from srcli_train.networks import NetworkSpec, build  # noqa: E402
from srcli_train.recipes import Recipe  # noqa: E402


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MDSR with random weights, exported for x4."""
    return exported(tmp_path_factory.mktemp("network"), "mdsr", 4)


def _tables(out: Path, section: str) -> list[list[str]]:
    return [row for table in json.loads(out.read_text())[section]["tables"] for row in table["rows"]]


def test_commands_keep_no_absolute_path() -> None:
    command = common.command_line(["/home/someone/Set5", "--scales", "4"])
    assert command.endswith(" Set5 --scales 4")
    assert "/home" not in command


def test_the_rebuilt_network_equals_the_exported_one(network: Path) -> None:
    """Residual scaling and pixel range are folded in the file; float32 sums differ by 1e-6."""
    file = resolve(network, 4)
    assert contenders.check_parity(contenders.from_onnx(file), file) < 1e-5


def test_a_wrong_network_is_refused(network: Path) -> None:
    file, other = resolve(network, 4), contenders.from_onnx(resolve(network, 4))
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(ValueError, match="differs by"):
        contenders.check_parity(other, file)


def test_operations_are_those_of_the_architecture() -> None:
    """EDSR x2 with one block of 8: head 3->8, 3 times 8->8, upsampler 8->32, tail 8->3 on 4 pixels."""
    spec = NetworkSpec("tiny", "edsr", blocks=1, features=8, scales=(2,))
    products = 9 * (3 * 8 + 3 * 8 * 8 + 8 * 32 + 4 * 8 * 3)
    assert contenders.flops_per_pixel(build(spec), 2) == 2 * products


def test_photographs_have_the_sizes_asked_for(tmp_path: Path) -> None:
    paths = pictures.folder(tmp_path, 4, 0.01, 0.04)
    sizes = sorted(h.height * h.width / 1e6 for h in map(images.probe, paths))
    assert sizes == pytest.approx([0.01, 0.02, 0.03, 0.04], rel=0.05)  # whole pixels
    assert [p.suffix for p in paths] == [".jpg", ".png", ".jpg", ".png"]
    assert pictures.photograph(1000, 50).std() > 10  # larger than its source: repeated, not black


def test_speed_of_engines_and_commands(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    few = ["--repetitions", "1", "--starts", "1", "--sides", "8", "--sizes", "16", "--out", str(out)]
    speed.main([*few, "--models", str(network), "--only", "throughput"])
    speed.main([*few, "--models", str(network), "--only", "memory", "--picture", "20", "30"])
    engines = {row[2]: float(row[4]) for row in _tables(out, "throughput")}
    assert engines["PyTorch eager fp32"] == 1.0
    assert {"openvino fp32", "onnxruntime fp32", "torch fp32"} <= set(engines)
    assert _tables(out, "memory-0")[0][0] == "30×20"
    measured = json.loads(out.read_text())["memory-0"]["measurements"]
    assert 0 < (measured["anonymous"] or 1) < measured["peak"]
    speed.main([*few, "--models", str(network), "--only", "streams", "--tiles", "24", "40"])
    assert [row[:2] for row in _tables(out, "streams") if row[0] == "1"] == [["1", "24"], ["1", "40"]]
    assert _tables(out, "streams")[1][4] == "1.00", "compared with itself"


def test_the_pipeline_is_compared_with_its_engine(network: Path, tmp_path: Path) -> None:
    out, sizes = tmp_path / "pipeline.json", ["--smallest", "0.002", "--largest", "0.004"]
    few = ["--pictures", "2", *sizes, "--repetitions", "1"]
    pipeline.main([*few, "--model", str(network), "--out", str(out)])
    measured = json.loads(out.read_text())["pipeline-mixed"]["measurements"]
    assert measured["seconds"]["pipeline"][0] > 0
    assert measured["seconds"]["engine"][0] > 0
    assert {name: stage["calls"] for name, stage in measured["stages"].items()} == {
        "network": 2,
        "decode": 2,
        "pixels to network": 2,
        "check finite": 2,
        "network to pixels": 2,
        "encode and write": 2,
    }


def test_a_pipeline_is_published_when_later_parts_fail(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(words: list[str]) -> Taken:
        raise RuntimeError("exit code 1")

    monkeypatch.setattr(pipeline.rounds, "measure", broken)
    out, sizes = tmp_path / "pipeline.json", ["--smallest", "0.002", "--largest", "0.002"]
    few = ["--pictures", "1", *sizes, "--repetitions", "1", "--backend", "onnxruntime", "--device", "cpu"]
    with pytest.raises(SystemExit, match="from the shell: RuntimeError: exit code 1"):
        pipeline.main([*few, "--model", str(network), "--out", str(out)])
    measured = json.loads(out.read_text())["pipeline-mixed"]["measurements"]
    assert measured["engine"] == "onnxruntime fp32 cpu"
    assert "start" not in measured
    assert measured["stages"]["network"]["calls"] == 1


class _Slow:
    """An engine that takes 2 s a batch."""

    info, scale = None, 2

    def __init__(self, clock: list[float]) -> None:
        self._clock = clock

    def run(self, lr: object) -> object:
        raise AssertionError("the pipeline calls run_uint8")

    def run_uint8(self, batches: Iterable[int]) -> Iterator[int]:
        for batch in batches:
            self._clock[0] += 2.0
            yield batch


def test_the_clocks_count_the_engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, share = [0.0], stages.Share()
    monkeypatch.setattr(stages, "perf_counter", lambda: clock[0])
    engine = stages._Clocked(_Slow(clock), share, threading.Lock())  # type: ignore[arg-type]
    assert isinstance(engine, Uint8Engine)
    assert not isinstance(engine, Concurrent)

    def made() -> Iterator[int]:
        for number in range(3):
            clock[0] += 5.0
            yield number

    assert list(engine.run_uint8(made())) == [0, 1, 2]  # type: ignore[arg-type]
    assert (share.wall, share.calls) == (pytest.approx(6.0), 3)


def test_quality_rows_and_page(network: Path, tmp_path: Path) -> None:
    hr, out = tmp_path / "Set5", tmp_path / "quality.json"
    hr.mkdir()
    pictures.save(pictures.photograph(48, 64), hr / "one.png")
    quality.main([str(hr), "--models", str(network), "--scales", "4", "--out", str(out)])
    methods = [row[0] for row in _tables(out, "quality")]
    assert methods[:2] == ["bicubic", "tiny"]
    assert "EDSR, published" in methods
    exact = next(row for row in _tables(out, "quality") if row[1].endswith("fp32"))
    assert exact[-1] == "0.0000"
    report.main(["--results", str(tmp_path)])
    assert "Quality on Set5" in (tmp_path / "README.md").read_text()
    assert "![" not in (tmp_path / "README.md").read_text()
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality" / "quality.png").write_bytes(b"a plot of that section")
    report.main(["--results", str(tmp_path)])
    assert "![Quality on Set5](quality/quality.png)" in (tmp_path / "README.md").read_text()


def test_training_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = NetworkSpec("small", "edsr", blocks=1, features=8, scales=(2,))
    monkeypatch.setattr(training, "preset", lambda name, scale: small)
    monkeypatch.setattr(training, "find", lambda name: Recipe(batch=2, patch=8))
    out, few = tmp_path / "training.json", ["--images", "2", "--side", "80", "--block", "1"]
    training.main([*few, "--repetitions", "1", "--networks", "edsr-baseline", "--out", str(out)])
    rate = json.loads(out.read_text())["training"]["measurements"]["rates"][0]
    assert rate["ratio"]["median"] == pytest.approx(rate["real"]["median"] / rate["synthetic"]["median"])


def test_a_training_log_is_drawn(tmp_path: Path) -> None:
    log = tmp_path / "run.csv"
    log.write_text("update,seconds,loss,rate,psnr_x2\n1,36,9,1,\n2,72,5,1,30.5\n3,108,4,1,30.5\n")
    assert plot_training.read(log).name == "run"
    assert plot_training.read(log).psnr == {"psnr_x2": [(0.02, 30.5)]}
    plot_training.main(["--logs", str(tmp_path), "--out", str(tmp_path / "training.png")])
    assert images.probe(tmp_path / "training.png").width > 400


def test_before_and_after_panels(network: Path) -> None:
    crop = before_after.CROPS[0]
    picture = before_after.beside(crop, before_after.Upscaler(network, 4))
    assert picture.shape[1] >= 2 * 256
    assert picture.dtype == np.uint8
