"""Building with a stand-in of TensorRT: the options it gets, and its errors translated."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srcli.backends.tensorrt.build import BuildProgress, build
from srcli.backends.tensorrt.flavour import ErrorLog, Flavour, failure
from srcli.backends.tensorrt.runtime import TensorRtContext
from srcli.errors import InferenceError, ModelFileError

FREE = (-1, 3, -1, -1)


class Logger:
    """`ILogger`: a base class."""

    INTERNAL_ERROR, ERROR, WARNING = range(3)


class Config:
    """`IBuilderConfig`: keeps the flags and preview features."""

    def __init__(self, profiles: int) -> None:
        self.profiles = profiles
        self.flags: set[str] = {"TF32"}
        self.features: set[str] = set()
        self.set_flag, self.clear_flag = self.flags.add, self.flags.discard

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        pass

    def set_preview_feature(self, feature: str, on: bool) -> None:
        assert on
        self.features.add(feature)

    def add_optimization_profile(self, profile: object) -> int:
        return self.profiles


class Stand:
    """A stand-in of TensorRT for RTX for building.

    Args:
        shape: of the network's input.
        error: the builder's; empty: it builds.
        raises: what a profile raises for its shapes.
        profiles: result of adding a profile; below 0: rejected.
        new: whether it has the options of later versions.
    """

    def __init__(
        self,
        shape: tuple[int, ...] = FREE,
        error: str = "",
        raises: Exception | None = None,
        profiles: int = 0,
        new: bool = True,
    ) -> None:
        self.shape, self.error, self.raises = shape, error, raises
        self.config = Config(profiles)
        self.shapes: list[tuple[int, ...]] = []
        later = {"REQUIRE_USER_ALLOCATION": "user"} if new else {}
        self.BuilderFlag = SimpleNamespace(TF32="TF32", **later)
        if new:
            self.PreviewFeature = SimpleNamespace(RUNTIME_ACTIVATION_RESIZE_10_10="resize")
        self.ILogger, self.IProgressMonitor, self.IRuntimeCache = Logger, object, object
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.Builder = self.OnnxParser = lambda *arguments: self

    def parse(self, data: bytes) -> bool:
        return True

    def create_network(self, flags: int) -> "Stand":
        return self

    def get_input(self, number: int) -> Any:
        return SimpleNamespace(name="lr", shape=self.shape)

    def create_builder_config(self) -> Config:
        return self.config

    def create_optimization_profile(self) -> "Stand":
        return self

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        if self.raises:
            raise self.raises
        self.shapes = list(shapes)

    def build_serialized_network(self, network: object, config: Config) -> bytes | None:
        if self.error:
            ErrorLog.of(self).logger.log(Logger.ERROR, self.error)
            return None
        return b"engine"


def built(api: Stand, folder: Path) -> bytes:
    progress = BuildProgress("engine")
    return build(
        Flavour("tensorrt_rtx", "1.7", api), folder / "tiny-x2.onnx", "fp32", 96, None, b"", progress
    ).engine


def test_memory_is_external_and_sized_by_tile(tiny_models: Path) -> None:
    api = Stand()
    assert built(api, tiny_models) == b"engine"
    assert (api.config.flags, api.config.features) == ({"user"}, {"resize"})
    assert api.shapes == [(1, 3, 1, 1), (1, 3, 96, 96), (1, 3, 96, 96)]


def test_older_version_gets_no_newer_options(tiny_models: Path) -> None:
    api = Stand(new=False)
    assert built(api, tiny_models) == b"engine"
    assert (api.config.flags, api.config.features) == (set(), set())


@pytest.mark.parametrize(
    "text",
    [
        "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (tensor volume exceeds (2^31)-1)",
        "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[conv]}.)",
        "Error Code 2: OutOfMemory (Requested size was 9 bytes.)",
    ],
)
def test_tile_too_large_is_a_memory_error(text: str, tiny_models: Path) -> None:
    with pytest.raises(MemoryError):
        built(Stand(error=text), tiny_models)


def test_other_build_error_names_the_file(tiny_models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny-x2\.onnx.*no such operator"):
        built(Stand(error="no such operator"), tiny_models)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (-1, 3, 64, -1), (4, 3, -1, -1)])
def test_network_of_fixed_size_is_refused(shape: tuple[int, ...], tiny_models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny-x2\.onnx: takes inputs of one size only") as caught:
        built(Stand(shape), tiny_models)
    assert "dynamic" in caught.value.hint


def test_fixed_batch_of_one_builds(tiny_models: Path) -> None:
    assert built(Stand((1, 3, -1, -1)), tiny_models) == b"engine"


@pytest.mark.parametrize(
    "error", [RuntimeError("Shape is inconsistent"), ValueError("Shape is inconsistent")]
)
def test_raising_profile_names_the_file(error: Exception, tiny_models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny-x2\.onnx.*inconsistent"):
        built(Stand(raises=error), tiny_models)


def test_rejected_profile_names_the_file(tiny_models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny-x2\.onnx.*any size"):
        built(Stand(profiles=-1), tiny_models)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("Error in set optimization profile."), InferenceError),
        (RuntimeError("Error Code 1: Cuda Runtime (out of memory)"), MemoryError),
    ],
)
def test_runtime_exception_is_translated(error: Exception, kind: type[Exception]) -> None:
    def refuse(profile: int, stream: int) -> bool:
        raise error

    context = SimpleNamespace(set_optimization_profile_async=refuse)
    running = TensorRtContext(context, ("lr", "sr"), ErrorLog.of(Stand()))
    with pytest.raises(kind, match=str(error)[:10]):
        running.prepare((1, 3, 8, 8), 1)


def test_runtime_returning_false_is_translated() -> None:
    api = Stand()
    context = SimpleNamespace(set_optimization_profile_async=lambda profile, stream: False)
    ErrorLog.of(api).logger.log(Logger.ERROR, "no such profile")
    with pytest.raises(InferenceError, match="no such profile"):
        TensorRtContext(context, ("lr", "sr"), ErrorLog.of(api)).prepare((1, 3, 8, 8), 1)


def test_other_error_text_is_an_inference_error() -> None:
    assert isinstance(failure("Error Code 3: API Usage Error"), InferenceError)
