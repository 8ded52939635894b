"""From a model and a tile size to an engine ready to run: found on disk, or built and kept."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.backends.devices import Gpu
from srcli.backends.tensorrt import store
from srcli.backends.tensorrt.build import Built, build
from srcli.backends.tensorrt.flavour import Flavour
from srcli.backends.tensorrt.lane import Program
from srcli.backends.tensorrt.progress import Watch, duration
from srcli.backends.tensorrt.runtime import TensorRtProgram
from srcli.backends.tensorrt.store import Key
from srcli.errors import InferenceError
from srcli.models.spec import ModelSpec

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """Everything an engine is made from, except how large its tiles are.

    Attributes:
        flavour: TensorRT.
        path, spec: the model.
        precision: "fp32" or "fp16".
        gpu: the one to build for; None: any (`Flavour.portable` only).
        folders: where engines are looked for; the first also keeps new ones.
        tell: where progress goes.
    """

    flavour: Flavour
    path: Path
    spec: ModelSpec
    precision: str
    gpu: Gpu | None
    folders: tuple[Path, ...]
    tell: Tell

    @property
    def name(self) -> str:
        """Of the model and its scale, as in file names."""
        return f"{self.spec.name}-x{self.spec.scale}".replace("/", "_")

    def program(self, side: int) -> Program:
        """An engine for tiles up to that side, loaded onto the GPU.

        Raises:
            ModelFileError: the model cannot be read or built.
            MemoryError: the GPU has too little memory.
            InferenceError: TensorRT refuses an engine that was just built.
        """
        key = self.key(side)
        plan = self.find(key)
        if plan is not None:
            try:
                return self._loaded(key, plan)
            except InferenceError as error:
                self.tell(f"{error.message} The engine is built anew.")
        return self._loaded(key, self.make(key))

    def key(self, side: int) -> Key:
        """What the engine will be kept under."""
        flavour = self.flavour
        return store.key_of(self.path, self.precision, side, flavour.name, flavour.version, self.gpu)

    def find(self, key: Key) -> bytes | None:
        """An engine built before, for this GPU or else for any."""
        keys = [key, key.for_any_gpu] if self.flavour.portable else [key]
        return store.look_up(keys, self.folders, self.name, self.tell)

    def make(self, key: Key) -> bytes:
        """Build the engine, with progress, and keep it."""
        what = f"TensorRT engine for {self.name} {key.precision}, tiles up to {key.side}"
        self.tell(f"{what}: building it once for {key.gpu if self.gpu else 'any'} GPU")
        watch = Watch(self.tell, what)
        timings = self._beside(key, ".timings")
        before = store.read(timings, _timing_key(key), self.tell) or b""
        built = build(self.flavour, self.path, self.precision, key.side, self.gpu, before, watch)
        file = self._keep(key, built)
        self.tell(f"{what}: built in {duration(watch.seconds)}, kept as {file}")
        return built.plan

    def _keep(self, key: Key, built: Built) -> Path:
        file = key.file(self.folders[0], self.name)
        store.keep(file, key.text, built.plan, self.tell)
        if built.timings:
            store.keep(self._beside(key, ".timings"), _timing_key(key), built.timings, self.tell)
        return file

    def _loaded(self, key: Key, plan: bytes) -> Program:
        kernels = key.file(self.folders[0], self.name).with_suffix(".kernels")
        before = store.read(kernels, key.text, self.tell) or b"" if self.flavour.portable else b""

        def keep(compiled: bytes) -> None:
            store.keep(kernels, key.text, compiled, self.tell)

        return TensorRtProgram(self.flavour, plan, before, keep)

    def _beside(self, key: Key, suffix: str) -> Path:
        """A file that all engines of this GPU and TensorRT share."""
        shared = replace(key, model="", precision="", side=0, srcli="")
        return shared.file(self.folders[0], "all").with_suffix(suffix)


def _timing_key(key: Key) -> str:
    return replace(key, model="", precision="", side=0, srcli="").text
