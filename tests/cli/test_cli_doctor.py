"""The doctor: trials of backends, and known problems of installations."""

import json

import pytest

from srcli.backends import devices, registry
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour
from srcli.benchmark.subjects import trial
from srcli.cli.app import main
from srcli.cli.doctor import problems
from srcli.errors import InferenceError, MissingExtraError

H200 = Driver("13.0", (Gpu("NVIDIA H200", "9.0", 150_754_820_096),))


def test_cpu_build_of_torch_is_a_problem() -> None:
    assert "CPU build" in problems({"torch": "2.13.0+cpu"}, H200, {})[0]
    assert problems({"torch": "2.13.0+cpu", "onnxruntime": "1.31"}, Driver(), {}) == []


@pytest.mark.parametrize(("nvidia", "extra"), [(H200, "gpu"), (Driver(), "cpu")])
def test_two_onnxruntime_wheels_are_a_problem(nvidia: Driver, extra: str) -> None:
    (problem,) = problems({"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"}, nvidia, {})
    assert "overwrite each other" in problem
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problem
    assert problem.endswith(f'pip install "srcli[{extra}]"')


@pytest.mark.parametrize("package", ["torch", "onnxruntime-gpu"])
@pytest.mark.parametrize(
    ("driver_cuda", "built_for", "runs"),
    [("12.8", "13.0", False), ("12.4", "12.8", True), ("13.0", "13.2", True), ("13.0", "12.8", True)],
)
def test_build_too_new_for_driver_is_a_problem(
    package: str, driver_cuda: str, built_for: str, runs: bool
) -> None:
    """Within one major version, older drivers run newer builds."""
    found = problems({package: "2.0"}, Driver(driver_cuda, H200.gpus), {package: built_for})
    assert (found == []) == runs
    assert all(f"CUDA {driver_cuda} at most, {package} 2.0 was built for {built_for}" in f for f in found)


def test_extra_for_gpus_is_named_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    for found, extra in ((H200, "gpu"), (Driver(problem="there is no NVIDIA driver"), "cpu")):
        monkeypatch.setattr(devices, "ask", lambda found=found: found)
        assert trial("onnxruntime", "cpu", "fp32").fix == f'Add it with: pip install "srcli[{extra}]"'


@pytest.mark.parametrize(
    ("capability", "extra"),
    [("8.9", "trt"), ("12.0", "trt"), ("9.0", "trt-full"), ("10.0", "trt-full"), ("7.0", "trt")],
)
def test_tensorrt_that_supports_the_gpu_is_named(
    capability: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Driver("13.0", (Gpu("G", capability, 1 << 34),))
    monkeypatch.setattr(devices, "ask", lambda: gpu)
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert trial("tensorrt", "cuda", "fp16").fix == f'Add it with: pip install "srcli[{extra}]"'
    monkeypatch.setattr(registry, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    monkeypatch.setattr(registry, "load", refuse)
    assert ("srcli[trt-full]" in trial("tensorrt", "cuda", "fp16").fix) == (extra == "trt-full")


def refuse(*_: object) -> None:
    raise InferenceError("The tensorrt backend failed: no kernel image is available.", "Try another backend.")


def test_trials_report_success_or_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose = registry.choose

    def without_torch(name: str, options: object) -> object:
        if name == "torch":
            raise MissingExtraError("The torch backend", "export")
        return choose(name, options)

    def broken(*_: object) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("srcli.backends.registry.choose", without_torch)
    monkeypatch.setattr("srcli.backends.openvino.load", broken)
    monkeypatch.setattr("srcli.backends.devices.ask", lambda: Driver(problem="there is no NVIDIA driver"))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    works = {(t["backend"], t["precision"]): t["works"] for t in report["trials"]}
    assert works["onnxruntime", "fp32"]
    assert works["bicubic", "fp32"]
    assert not works["openvino", "fp32"]
    assert not works["torch", "fp32"]
    reasons = {t["backend"]: f"{t['reason']} {t['fix']}" for t in report["trials"] if not t["works"]}
    assert "libgomp" in reasons["openvino"]
    assert 'pip install "srcli[export]"' in reasons["torch"]
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("no NVIDIA driver" in line for line in lines)
    assert any(line.startswith("onnxruntime") and " yes " in line for line in lines)


def test_exit_code_1_without_any_network_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, options: object) -> object:
        raise MissingExtraError(f"The {name} backend", "cpu")

    monkeypatch.setattr("srcli.backends.registry.choose", missing)
    assert main(["doctor"]) == 1
    assert 'pip install "srcli[cpu]"' in capsys.readouterr().out
