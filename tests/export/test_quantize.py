"""The quantiser is a part of ONNX Runtime that only int8 needs."""

import subprocess
import sys


def test_exports_without_int8_need_no_quantiser() -> None:
    """Installations that were cut down to what runs networks lack it."""
    cut = "import sys; sys.modules['onnxruntime.quantization'] = None; import srcli_export"
    subprocess.run([sys.executable, "-c", cut], check=True)
