"""Weights from elsewhere -> verified ONNX files: `import_weights(Request(Path("edsr_x2.pt")))`."""

from srcli_export.importing.importer import Imported, ImportedFile, import_weights
from srcli_export.importing.request import Request

__all__ = ["Imported", "ImportedFile", "Request", "import_weights"]
