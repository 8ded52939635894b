"""Folders, LR sets and patches: what belongs together is used, what does not is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_training import FAST, Quiet, folder_of_pictures, rendered, tiny_pictures

from srcli.errors import TrainingError
from srcli.imaging.resize import downscale
from srcli.io.pictures import Picture, write
from srcli_train.command import train
from srcli_train.data import Pictures, load_pictures
from srcli_train.folders import UnfitPicturesError, check_pair, find_source, read_rgb, split
from srcli_train.job import Job
from srcli_train.networks import preset
from srcli_train.patches import PatchSampler
from srcli_train.prefetch import drawn_by_threads


def _div2k(folder: Path, scale: int = 2, blur: bool = False) -> Path:
    """DIV2K's layout with rendered pictures; `blur` degrades LR otherwise."""
    hr = folder_of_pictures(folder / "DIV2K_train_HR")
    lr = folder / "DIV2K_train_LR_bicubic" / f"X{scale}"
    lr.mkdir(parents=True)
    for path in sorted(hr.iterdir()):
        image = downscale(read_rgb(path), scale)
        noise = np.random.default_rng(1).integers(-60, 60, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8) if blur else image
        write(lr / f"{path.stem}x{scale}.png", Picture(image))
    return folder


def _load(folder: Path, tmp_path: Path, scale: int = 2) -> object:
    return load_pictures(find_source(folder), (scale,), tmp_path / "cache", lambda done, total: None)


def test_official_lr_is_used_where_present(tmp_path: Path) -> None:
    source = find_source(_div2k(tmp_path / "div2k"))
    assert len(source.hr) == len(source.lr[2]) == 4
    assert 3 not in source.lr
    pictures = _load(tmp_path / "div2k", tmp_path)
    np.testing.assert_array_equal(pictures.lr[2][1], read_rgb(source.lr[2][1]))


def test_lr_made_by_us_is_our_bicubic(tmp_path: Path) -> None:
    pictures = tiny_pictures(tmp_path, (3,))
    np.testing.assert_array_equal(pictures.lr[3][0], downscale(rendered(0), 3))


def test_another_degradation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a bicubic x2"):
        _load(_div2k(tmp_path / "div2k", blur=True), tmp_path)


def test_a_missing_lr_image_is_refused(tmp_path: Path) -> None:
    folder = _div2k(tmp_path / "div2k")
    (folder / "DIV2K_train_LR_bicubic" / "X2" / "0002x2.png").unlink()
    with pytest.raises(TrainingError, match=r"lacks 1 of 4 .* 0002x2\.png"):
        find_source(folder)


def test_lr_of_another_scale_is_refused() -> None:
    with pytest.raises(TrainingError, match="is 32×32, but HR / 2 is 48×48"):
        check_pair(rendered(1), np.asarray(downscale(rendered(1), 3)), 2, Path("0001x2.png"))


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -2), (-1, 1)])
def test_misalignment_is_measured_and_refused(dy: int, dx: int) -> None:
    hr = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    lr = np.roll(np.asarray(downscale(hr, 2)), (dy, dx), (0, 1))
    with pytest.raises(TrainingError, match=f"shifted by {dx} pixels to the right and {dy} down"):
        check_pair(hr, lr, 2, Path("0001x2.png"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No images"):
        find_source(tmp_path)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """macOS leaves `._0001.png` beside `0001.png` on disks of other systems."""
    folder = _div2k(tmp_path / "div2k")
    before = find_source(folder)
    (folder / "DIV2K_train_HR" / "._0001.png").write_bytes(b"\x00\x05\x16\x07")
    assert find_source(folder) == before


def test_images_smaller_than_a_patch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="side of 48 pixels"):
        PatchSampler(tiny_pictures(tmp_path), replace(FAST, patch=64))


def test_a_second_run_decodes_nothing(tmp_path: Path) -> None:
    tiny_pictures(tmp_path)
    calls: list[int] = []
    load_pictures(find_source(tmp_path / "hr"), (2,), tmp_path / "cache", lambda done, _: calls.append(done))
    assert calls == []


def test_patches_depend_on_seed_and_update_alone(tmp_path: Path) -> None:
    pictures = tiny_pictures(tmp_path, (2, 3, 4))
    one, two = PatchSampler(pictures, FAST), PatchSampler(pictures, FAST)
    ahead = list(drawn_by_threads(one, range(5, 9)))
    for update, minibatch in zip(range(5, 9), ahead, strict=True):
        np.testing.assert_array_equal(minibatch.lr, two(update).lr)
    assert not np.array_equal(one(5).lr, PatchSampler(pictures, replace(FAST, seed=2))(5).lr)


def test_every_hr_patch_belongs_to_its_lr_patch(tmp_path: Path) -> None:
    """Away from the patch's edge, downscaling the HR patch gives the LR patch, flips and turns included.

    By 1 it may differ: a quarter turn swaps the order of the two passes, and each rounds.
    """
    sampler = PatchSampler(tiny_pictures(tmp_path, (2, 3, 4)), replace(FAST, patch=16))
    for update in range(6):
        batch = sampler(update)
        for lr, hr in zip(batch.lr, batch.hr, strict=True):
            again = np.asarray(downscale(hr, batch.scale)).astype(int)
            assert np.abs(again - lr)[4:-4, 4:-4].max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_as_many_patches_are_drawings_as_asked(tmp_path: Path, scale: int) -> None:
    """The others, and where they lie, are those of a run without drawings."""
    recipe = replace(FAST, degradation="photo", patch=24, batch=40)
    pictures = tiny_pictures(tmp_path, (scale,))
    none, some = (PatchSampler(pictures, replace(recipe, drawings=share))(1) for share in (0.0, 0.3))
    drawn = [not np.array_equal(one, other) for one, other in zip(none.hr, some.hr, strict=True)]
    assert 3 < sum(drawn) < 21  # 12 ± 3 standard deviations
    for lr, hr in zip(some.lr[drawn], some.hr[drawn], strict=True):
        assert hr.shape == (24 * scale, 24 * scale, 3)
        nearest = lr.repeat(scale, 0).repeat(scale, 1)
        assert np.corrcoef(nearest.ravel(), hr.ravel())[0, 1] > 0.6


def test_the_most_detailed_candidate_is_taken(tmp_path: Path) -> None:
    half = np.full((96, 96, 3), 128, np.uint8)
    half[:, 48:] = np.random.default_rng(0).integers(0, 256, (96, 48, 3))
    pictures = Pictures([half], {2: [np.asarray(downscale(half, 2), np.uint8)]})

    def flat(candidates: int) -> int:
        sampler = PatchSampler(pictures, replace(FAST, batch=200, candidates=candidates))
        return int((np.ptp(sampler(0).lr.reshape(200, -1), axis=1) == 0).sum())

    assert flat(1) > 70  # places 0 to 15 of 41 lie in the flat half, before the ringing of the edge
    assert flat(4) < 15  # of four, all would have to


def test_every_scale_is_drawn_about_equally_often(tmp_path: Path) -> None:
    sampler = PatchSampler(tiny_pictures(tmp_path, (2, 3, 4)), replace(FAST, batch=1))
    drawn = [sampler(update).scale for update in range(300)]
    assert all(70 < drawn.count(scale) < 130 for scale in (2, 3, 4))  # 100 ± 3.7 standard deviations


def test_an_error_while_drawing_reaches_the_loop() -> None:
    def broken(update: int) -> object:
        raise ValueError(f"update {update}")

    with pytest.raises(ValueError, match="update 3"):
        next(drawn_by_threads(broken, range(3, 5)))


def test_a_picture_smaller_than_the_scale_is_refused(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "hr")
    write(folder / "dot.png", Picture(rendered(0, 2)))
    with pytest.raises(TrainingError, match=r"dot\.png: 2×2 pixels are too few"):
        _load(folder, tmp_path, 4)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_picture_smaller_than_the_patches_is_named(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "hr")
    write(folder / "strip.png", Picture(rendered(0, 40)[:30]))
    job = Job(folder, preset("edsr-baseline", 2), replace(FAST, patch=16), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"strip\.png: its LR has a side of 15 pixels, .* take 16\."):
        train(replace(job, valid=folder, cache=tmp_path / "cache"), Quiet())


def test_all_pictures_that_cannot_be_used_are_named_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged, no picture, too small for the scale or for a patch, twice there, damaged for validation."""
    folder = folder_of_pictures(tmp_path / "hr")
    write(folder / "copy.png", Picture(rendered(1)))
    write(folder / "strip.png", Picture(rendered(0, 40)[:30]))
    write(folder / "dot.png", Picture(rendered(0, 1)))
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:500])
    valid = folder_of_pictures(tmp_path / "valid")
    (valid / "empty.png").touch()
    job = Job(folder, preset("edsr-baseline", 2), replace(FAST, patch=16), tmp_path / "run", valid=valid)
    with pytest.raises(UnfitPicturesError, match="4 more cannot be used either") as caught:
        train(replace(job, cache=tmp_path / "cache"), Quiet())
    named = [problem.message for problem in caught.value.problems]
    for name in ("cut.png", "dot.png", "text.jpg", "strip.png", "empty.png"):
        assert sum(name in message for message in named) == 1
        assert name in caplog.text
    assert "copy.png shows the same as 0001.png" in caplog.text
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").glob("*/*")), "gigabytes that no run uses"


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr")
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cache.*: Not a directory"):
        _load(tmp_path / "hr", tmp_path)


@pytest.mark.parametrize(("images", "held"), [(2, 1), (9, 1), (25, 2), (119, 11), (130, 12), (1323, 12)])
def test_a_tenth_is_held_back_at_most_twelve(tmp_path: Path, images: int, held: int) -> None:
    for number in range(images):
        (tmp_path / f"{number:04d}.png").touch()
    source, validation = split(tmp_path, None)
    assert len(validation) == held
    assert {*source.hr, *validation} == set(tmp_path.glob("*.png"))
    assert len(source.hr) == images - held
