"""Checkpoint -> verified ONNX files: `export_checkpoint(Path("best.pt"), Path("models"))`."""

from srcli_export.exporter import Exported, export_checkpoint

__all__ = ["Exported", "export_checkpoint"]
