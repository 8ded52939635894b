"""Commands whose package comes with an extra: a missing one is explained, not traced."""

from srcli.errors import MissingExtraError

_BROUGHT_BY_EXTRAS = {
    "torch",
    "tensorboard",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "srcli_train",
    "srcli_export",
}


def missing_extra(error: ImportError, what: str, extra: str) -> ImportError | MissingExtraError:
    """What to raise for a failed import: the pip command, or the error itself if it is no extra's.

    Args:
        error: the failed import.
        what: what the user asked for, e.g. "Training".
        extra: the extra of the package that adds it, e.g. "train".
    """
    package = (error.name or "").partition(".")[0]
    return MissingExtraError(what, extra) if package in _BROUGHT_BY_EXTRAS else error
