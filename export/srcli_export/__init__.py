"""Checkpoint -> verified ONNX files: `export_checkpoint(Path("best.pt"), Path("models"))`."""

from srcli.backends.libraries import silence_onnxruntime

silence_onnxruntime()

from srcli_export.exporter import Exported, export_checkpoint  # noqa: E402 - imports it

__all__ = ["Exported", "export_checkpoint"]
