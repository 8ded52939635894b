"""Checkpoint -> verified ONNX files: `export_checkpoint(Path("best.pt"), Path("models"))`."""

from srcli.backends.onnxruntime import disable_telemetry

disable_telemetry()

from srcli_export.exporter import Exported, export_checkpoint  # noqa: E402 - imports it

__all__ = ["Exported", "export_checkpoint"]
