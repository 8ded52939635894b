"""Where and with what a benchmark ran."""

import os
from dataclasses import dataclass

from srcli.backends import devices, doctor


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as it was before the first measurement.

    Attributes:
        cpu: its name; cores: those this process may use; features: its vector units that matter.
        gpus: names, in the driver's order.
        memory: bytes of RAM; None if the system does not tell.
        system: operating system and Python.
        load: one-minute load average; None if the system does not tell.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    gpus: tuple[str, ...]
    memory: int | None
    system: str
    load: float | None

    @property
    def line(self) -> str:
        """All of it in one line for people."""
        features = f" ({', '.join(self.features)})" if self.features else ""
        parts = [f"{self.cpu}, {self.cores} cores{features}", *self.gpus]
        parts += [f"{self.memory / 2**30:.0f} GiB"] if self.memory else []
        parts += [self.system]
        parts += [f"load before: {self.load:.2f}"] if self.load is not None else []
        return "; ".join(parts)


def here() -> Machine:
    """This machine, now."""
    processor = devices.processor()
    return Machine(
        cpu=processor.name,
        cores=processor.cores,
        features=processor.features,
        gpus=tuple(gpu.name for gpu in devices.ask().gpus),
        memory=_memory(),
        system=doctor.system(),
        load=_load(),
    )


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None
