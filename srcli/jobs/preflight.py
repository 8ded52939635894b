"""What a run would do with each picture, from headers alone: what cannot be done is said before any work."""

import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from srcli import memory
from srcli.errors import InputError, OutputError, SrcliError, shown
from srcli.io import pictures
from srcli.io.pictures import Header
from srcli.io.remote import Remote
from srcli.io.storage import amount, check_name, check_takes_files, existing
from srcli.jobs import plan
from srcli.jobs.outputs import Job
from srcli.jobs.plan import Upscale
from srcli.jobs.report import PictureResult, Status, failure
from srcli.models import auto
from srcli.settings import Settings, Size

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What will become of a picture.

    Attributes:
        result: PLANNED, or already its end.
        cost: bytes of RAM that it takes on its way.
        scratch: bytes of scratch files beside its output meanwhile.
    """

    result: PictureResult
    cost: int = 0
    scratch: int = 0


@dataclass(slots=True)
class _Disk:
    """What a file system is to take in bytes: at least, about, and for the largest scratch files.

    Attributes:
        free: bytes when its first picture was looked at.
    """

    folder: Path
    free: int
    least: int = 0
    likely: int = 0
    scratch: int = 0


@dataclass(slots=True)
class Preflight:
    """Looks at the headers of pictures, one after the other, and adds up the space for their results.

    Attributes:
        upscale: that is to enlarge them.
        settings: of the run.
    """

    upscale: Upscale
    settings: Settings
    _folders: dict[Path, SrcliError | None] = field(default_factory=dict)
    _disks: dict[int, _Disk] = field(default_factory=dict)

    def look(self, job: Job) -> Outlook:
        """What would become of a picture; nothing is decoded or kept. Errors become its result."""
        try:
            finished = self._left_alone(job) or plan.done_already(job, self.upscale, self.settings)
            return self._planned(job) if finished is None else Outlook(finished)
        except Exception as error:  # whatever a file does to a reader must not stop the others
            return Outlook(failure(job, error))

    def check_space(self) -> None:
        """Compare what the pictures looked at may take with what was free then; a doubt is logged.

        Raises:
            OutputError: they cannot fit.
        """
        for disk in self._disks.values():
            if disk.least > disk.free:
                raise OutputError(
                    f"{shown(disk.folder)}: the results need {amount(disk.least)} or more, "
                    f"and {amount(disk.free)} are free.",
                    "Free some space, or choose another place with -o.",
                )
            if disk.likely + disk.scratch > disk.free:
                log.warning(
                    "%s: the results may take %s, and %s are free. A run stops when the disk is full, "
                    "and the same command goes on.",
                    shown(disk.folder), amount(disk.likely + disk.scratch), amount(disk.free),
                )  # fmt: skip

    def _left_alone(self, job: Job) -> PictureResult | None:
        """The end of a picture that has the size asked for, where that is known without its pixels."""
        models = auto.models(self.settings.model)
        if (
            self.settings.trust_names
            or len(models) > 1
            or (self.settings.by_factor and self.settings.scale > 1)
        ):
            return None
        header = pictures.probe(job.input)
        source = header.height, header.width
        same = self.upscale.leaves(source, self.settings.output_size(source), models[0])
        return plan.left_alone(job, source, models[0]) if same else None

    def _planned(self, job: Job) -> Outlook:
        """Refuse what its format, its place, the memory or the disk cannot hold."""
        header, settings, limit = pictures.probe(job.input), self.settings, self.upscale.picture_memory // 3
        source = header.height, header.width
        settings.factor(source)
        output = settings.output_size(source)
        written = pictures.format_of(job.output)
        pictures.check_output(job.output, output, header.channels, header.bit_depth)
        self._check_place(job.output)
        needed = self.upscale.network_memory(source, output) + memory.LEAST
        if needed > settings.memory:
            raise InputError(
                f"{shown(job.source)} needs {needed / 2**20:.0f} MB of memory with this network and tile.",
                f"Give --memory {needed // 2**20 + 1}M or more, or a smaller --tile.",
            )
        scratch = memory.of_scratch(header, settings, self.upscale.scales, limit)
        self._count(job, header, output, scratch)
        cost = memory.of_picture(header, settings, self.upscale.scales, written, limit)
        return Outlook(PictureResult(job.source, job.target, Status.PLANNED, source, output), cost, scratch)

    def _check_place(self, target: Path) -> None:
        """Refuse a name or folder that takes no file. A folder is tried once."""
        check_name(target)
        if target.parent not in self._folders:
            try:
                check_takes_files(target.parent, target.parent)
            except SrcliError as error:
                self._folders[target.parent] = error
            else:
                self._folders[target.parent] = None
        if refused := self._folders[target.parent]:
            raise OutputError(f"{shown(target)} cannot be written. {refused.message}", refused.hint)

    def _count(self, job: Job, header: Header, output: Size, scratch: int) -> None:
        """Add a result to what its file system is to take.

        Raises:
            OutputError: alone it does not fit.
        """
        folder = existing(job.output.parent)
        with suppress(OSError):  # of the file system: what cannot be asked shows when it is written
            free, device = shutil.disk_usage(folder).free, folder.stat().st_dev
            replaced = job.output.stat().st_size if job.output.is_file() else 0
            least, likely = result_bytes(job, header, output)
            if scratch + least > free:
                raise OutputError(
                    f"{shown(job.target)} needs {amount(scratch + least)} or more on its disk, "
                    f"and {amount(free)} are free.",
                    "Free some space, or choose another place with -o.",
                )
            if isinstance(job.target, Remote):  # it stays only until it is put there
                return
            disk = self._disks.setdefault(device, _Disk(job.target.parent, free))
            disk.least += max(0, least - replaced)
            disk.likely += max(0, likely - replaced)
            disk.scratch = max(disk.scratch, scratch)


def result_bytes(job: Job, header: Header, output: Size) -> tuple[int, int]:
    """Bytes that a result takes at least, and about.

    In one format, a larger picture takes no more bytes a pixel than the small one did. Lossless results of
    lossy inputs are judged by their pixels alone.
    """
    written, channels, depth = pictures.format_of(job.target.name), header.channels, header.bit_depth
    likely = memory.file_bytes(written, output, channels, depth)
    if header.format in memory.LOSSLESS or written not in memory.LOSSLESS:
        with suppress(OSError):  # gone since
            factor = prod(output) / (header.height * header.width)
            likely = min(likely, int(job.input.stat().st_size * factor))
    least = memory.least_file_bytes(written, output, channels, depth)
    return least, max(likely, least)


def foresee(job: Job, upscale: Upscale, settings: Settings) -> PictureResult:
    """What a run would do with one picture, by its header; nothing is decoded or written."""
    return Preflight(upscale, settings).look(job).result
