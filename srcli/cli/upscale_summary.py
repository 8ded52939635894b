"""What a run of `srcli upscale` says before it and after it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from srcli.cli.console import Messages, count, duration
from srcli.settings import Settings

if TYPE_CHECKING:
    from srcli.io.remote import Location
    from srcli.jobs.plan import Plan
    from srcli.jobs.report import Loaded, PictureResult, Report
    from srcli.upscaler import Upscaler

_NAMED = 3
"""Files of one kind that are named at most."""


def noun(plan: "Plan", settings: Settings) -> str:
    """What the results of a run are called."""
    films = sum(job.film for job in plan.jobs)
    if settings.film.preview:
        return "preview"
    return "picture" if not films else "film" if films == len(plan.jobs) else "file"


def left_out(plan: "Plan") -> Iterator[str]:
    """What lies in the input folders and is no input."""
    from srcli.io.films.signatures import SUFFIXES
    from srcli.io.pictures import READ_ONLY_SUFFIXES

    if plan.left_out is not None:
        yield f"{plan.left_out} is the output folder; the pictures in it are no inputs."
    for link in plan.passed_by:
        yield f"{link} leads to a folder that is searched already or holds one that is; not entered."
    if plan.sound:
        names = ", ".join([*map(str, plan.sound[:_NAMED]), *(["..."] if len(plan.sound) > _NAMED else [])])
        yield f"{count(len(plan.sound), 'file')} with sound and no picture left out: {names}."
    films = [(kind, many) for kind, many in plan.unread if kind in SUFFIXES]
    phones = [(kind, many) for kind, many in plan.unread if kind in READ_ONLY_SUFFIXES]
    pictures = [one for one in plan.unread if one not in (*films, *phones)]
    for what, other, found, hint in (
        ("picture", " of other kinds", pictures, "convert to TIFF or JPEG first"),
        ("picture", "", phones, 'install what reads them with: pip install "srcli[heif]"'),
        ("film", "", films, 'install what reads them with: pip install "srcli[video]"'),
    ):
        if found:
            number, kinds = sum(many for _, many in found), ", ".join(kind for kind, _ in found)
            yield f"{count(number, what)}{other} ({kinds}) left out; {hint}."


def foreseen(result: "PictureResult") -> str:
    """One picture of a dry run."""
    from srcli.jobs.report import Status

    if result.status is Status.UNCHANGED:
        return f"{result.input} (unchanged)"
    if result.input_size is None or result.output_size is None:
        return f"{result.input} -> {result.output} ({result.status.value}: it is there)"
    sizes = [f"{width}×{height}" for height, width in (result.input_size, result.output_size)]
    return f"{result.input} {sizes[0]} -> {result.output} {sizes[1]}"


def loaded(upscalers: "list[Upscaler]", messages: Messages) -> "Loaded":
    """What a run was done with, for its report."""
    from srcli.jobs.report import Loaded
    from srcli.models.auto import name_of

    if not upscalers:
        return Loaded("", "", "", "")
    first, info = upscalers[0], upscalers[0].info
    devices = ", ".join(upscaler.info.device for upscaler in upscalers)
    reason = first.reason if len(upscalers) == 1 else f"{first.reason}; a picture each on {devices}"
    name = first.spec.name if first.bicubic else name_of(first.settings.model, first.spec)
    return Loaded(name, info.backend, devices, info.precision, reason, tuple(messages.kept))


def summary(report: "Report", out: "Location", settings: Settings, noun: str) -> str:
    """Where the pictures are and what made them, then what else there is to know."""
    from srcli.jobs.report import Status

    loaded, parts = report.engine, []
    if written := report.count(Status.WRITTEN):
        megapixels = sum(picture.megapixels for picture in report.pictures)
        work = f"{megapixels:.3g} MP in {duration(report.seconds)}"
        parts.append(f"{_are(written, noun)} in {out} ({work}), made by {_makers(report)}")
    if planned := report.count(Status.PLANNED):
        parts.append(f"{count(planned, noun)} would go to {out}, made by {_by(loaded.model, loaded.reason)}")
    if skipped := report.count(Status.SKIPPED):
        why = "by name, unopened" if settings.trust_names else "made by the same input and settings"
        parts.append(f"{_are(skipped, noun)} in {out} already, {why}")
    if kept := report.count(Status.KEPT):
        parts.append(f"{count(kept, 'file')} in {out} left alone: nothing in them says that srcli made them")
    if left := report.count(Status.UNCHANGED):
        parts.append(
            f"nothing to do for {count(left, noun)}: of this size already, by a network that only enlarges"
        )
    if failed := report.count(Status.FAILED):
        parts.append(f"{failed} failed")
    if report.interrupted or report.disk_full:
        left, why = report.count(Status.PENDING), "the disk is full" if report.disk_full else "interrupted"
        rest = "older results of these are as they were" if settings.overwrite else "the same command goes on"
        parts.append(f"{why} with {left} left; {rest}")
    return "; ".join(parts)


def _makers(report: "Report") -> str:
    """The networks behind the written pictures, and where they ran; bicubic where none had to."""
    names = list(dict.fromkeys(picture.computed.model for picture in report.pictures if picture.computed))
    if names == ["bicubic"] != [report.engine.model]:
        return "bicubic"
    return _by(" and ".join(names), report.engine.reason)


def _by(names: str, reason: str) -> str:
    """What made pictures, where it ran and why; bicubic is its own backend, and named once."""
    return reason if names == "bicubic" and reason.startswith(names) else f"{names}, {reason}"


def _are(number: int, noun: str) -> str:
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"
