"""Weights from elsewhere -> verified ONNX files: `import_weights(Request(Path("edsr_x2.pt")))`."""

from srcli_export.importing.importer import import_weights
from srcli_export.importing.source import Request

__all__ = ["Request", "import_weights"]
