"""Evaluation: protocols, bicubic row, checkpoints, published rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import folder_of_pictures, trainer

from srcli.cli.app import main
from srcli.errors import InputError, TrainingError
from srcli.io.pictures import Picture, write
from srcli_train.evaluate import bicubic, evaluate, from_checkpoint, mean, published


def test_scores_of_equal_methods_are_equal(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "Set5", 2)
    scores = evaluate(folder, 2, {"bicubic": bicubic(2), "again": bicubic(2)}, lambda done, total: None)
    assert [s.name for s in scores["bicubic"]] == ["0000.png", "0001.png"]
    assert scores["bicubic"] == scores["again"]
    assert mean(scores["bicubic"]).psnr_y == np.mean([s.psnr_y for s in scores["bicubic"]])


def test_published_rows_are_found_by_folder_name() -> None:
    rows = {row.method: row for row in published("set14", 3)}
    assert rows["EDSR-baseline"].psnr == 30.28
    assert rows["EDSR"].ssim == 0.8462
    assert published("BSD100", 2) == published("B100", 2) != ()
    assert published("holiday", 2) == ()


def test_checkpoint_and_ensemble(tmp_path: Path) -> None:
    path = trainer(tmp_path).run(stop_at=2)
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    plain = from_checkpoint(path, 2, ensemble=False)
    plus = from_checkpoint(path, 2, ensemble=True)
    assert plain(image).shape == (24, 32, 3)
    np.testing.assert_array_equal(plus(image[:, ::-1]), plus(image)[:, ::-1])  # the ensemble is symmetric
    assert (plain(image[:, ::-1]) != plain(image)[:, ::-1]).any()
    with pytest.raises(TrainingError, match="no network for x3, only x2"):
        from_checkpoint(path, 3, ensemble=False)


def test_command_prints_bicubic_model_and_published_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path / "Set5", 2)
    path = trainer(tmp_path).run(stop_at=2)
    assert main(["evaluate", str(folder), "-s", "2", "--model", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["bicubic", str(path), "bicubic,"]
    assert any("EDSR-baseline, published" in line and "37.99" in line for line in lines)
    assert main(["evaluate", str(folder), "-s", "2", "--model", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["methods"][str(path)]["images"]) == 2


def test_identical_pictures_are_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flat").mkdir()
    write(tmp_path / "flat" / "gray.png", Picture(np.full((64, 64, 3), 128, np.uint8)))
    assert main(["evaluate", str(tmp_path / "flat"), "-s", "2", "--model", "bicubic", "--json"]) == 0
    report = capsys.readouterr().out
    assert "Infinity" not in report
    assert json.loads(report)["methods"]["bicubic"]["mean"]["psnr_y"] is None


def test_a_checkpoint_is_not_run_otherwise_than_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path / "Set5", 2)
    for option in (("--backend", "openvino"), ("--precision", "bf16"), ("--device", "cuda")):
        assert main(["evaluate", str(folder), "-s", "2", "--model", "a.pt", *option]) == 2
        assert f"not in {option[1]}" in capsys.readouterr().err


def test_two_files_of_one_network_get_a_row_each(
    tmp_path: Path, tiny_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder_of_pictures(tmp_path / "Set5", 1))
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        file.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    models = [word for file in files for word in ("--model", str(file))]
    assert main(["evaluate", ".", "-s", "2", *models, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["set"] == "Set5"
    assert list(report["methods"]) == ["bicubic", *map(str, files)]


def test_an_image_too_small_to_measure_is_named(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "tiny", 1, size=26)
    with pytest.raises(InputError, match=r"0000\.png: 26×26 pixels are too few"):
        evaluate(folder, 2, {"bicubic": bicubic(2)}, lambda done, total: None)


def test_a_picture_of_one_pixel_is_called_that(tmp_path: Path) -> None:
    write(tmp_path / "dot.png", Picture(np.zeros((1, 1, 3), np.uint8)))
    with pytest.raises(InputError, match=r"dot\.png: 1×1 pixel is too few"):
        evaluate(tmp_path, 2, {"bicubic": bicubic(2)}, lambda done, total: None)


def test_a_missing_folder_is_said_before_a_network_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "nosuch")]) == 1
    error = capsys.readouterr().err
    assert "nosuch is not a folder" in error
    assert "mdsr" not in error


def test_degraded_scores_have_no_published_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_pictures(tmp_path / "Set5", 2)

    def out(*options: str) -> str:
        assert main(["evaluate", str(folder), "-s", "2", "--model", "bicubic", *options]) == 0
        return capsys.readouterr().out

    photo = out("--degradation", "photo", "--seed", "3")
    assert photo.splitlines()[0].startswith("Set5 x2, photo 3")
    assert "published" not in photo
    assert out("--degradation", "photo", "--seed", "3") == photo
    assert out("--degradation", "photo", "--seed", "4") != photo
    report = json.loads(out("--degradation", "unknown", "--seed", "1", "--json"))
    assert (report["degradation"], report["seed"]) == ("unknown", 1)
    clean = json.loads(out("--json"))["methods"]["bicubic"]["mean"]
    assert report["methods"]["bicubic"]["mean"]["psnr_y"] != clean["psnr_y"]
    assert main(["evaluate", str(folder), "-s", "2", "--model", "bicubic", "--degradation", "fog"]) == 2
    assert "bicubic, unknown, photo" in capsys.readouterr().err
