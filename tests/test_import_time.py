"""What is imported when: heavy libraries only once a network is really loaded."""

import subprocess
import sys

import pytest

HEAVY = (
    "onnxruntime",
    "openvino",
    "torch",
    "onnx",
    "av",
    "tensorrt",
    "ray",
    "PIL",
    "tifffile",
    "fsspec",
    "s3fs",
)


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that ran the code."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return {name.partition(".")[0] for name in output.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import srcli",
        "from srcli import Upscaler",
        "from srcli import list_models; list_models()",
        "import srcli.backends.openvino, srcli.backends.onnxruntime, srcli.backends.torch",
        "from srcli.backends import registry; assert 'bicubic' in registry.available()",
        "from srcli import Upscaler; Upscaler('bicubic')",
        "from srcli.cli.app import main; main(['--help'])",
        "from srcli.cli.app import main; main(['upscale', '--help'])",
        "import srcli.jobs.cluster",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_import_srcli_is_free() -> None:
    assert not modules_after("import srcli") & {"numpy", "cv2"}


def test_only_the_backend_in_use_is_imported(tiny_models: object) -> None:
    loaded = modules_after(f"from srcli import Upscaler; Upscaler({str(tiny_models)!r} + '/tiny-x2.onnx', 2)")
    assert "openvino" in loaded
    assert not loaded & {"onnxruntime", "torch", "onnx"}
