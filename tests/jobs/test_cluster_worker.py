"""What one process of a cluster is told, whether it can do that, and what it says of itself."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import Bucket
from cluster_threads import TWICE, jobs, of_bucket

from srcli.errors import OutputError
from srcli.io import pictures, remote
from srcli.io.remote import location
from srcli.jobs import cluster_worker
from srcli.jobs.cluster_worker import Computes, Order, Worker, computes, differences, settled
from srcli.jobs.report import Status
from srcli.settings import Settings
from srcli.upscaler import Upscaler

pytestmark = pytest.mark.usefixtures("cluster_folder")


def test_a_machine_that_sees_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_worker, "_WAITS", (0,))
    given, upscaler = jobs(1), Upscaler.from_settings(TWICE)
    Path("out").mkdir()
    Path("out/witness").write_text("word")
    order = Order(
        settled(TWICE, upscaler),
        2,
        computes(upscaler),
        Path.cwd(),
        (given[0].source,),
        given[0].target,
        Path("out/witness"),
        "word",
    )
    assert Worker().start(order).refused == ""
    assert Worker().start(replace(order, word="other")).refused == "its folder out is not that of this run"
    assert Worker().start(replace(order, folder=Path("/missing"))).refused == "it has no folder /missing"
    assert Worker().start(replace(order, sources=(Path("no.png"),))).refused == "it does not see no.png"


def test_a_machine_that_cannot_reach_the_store_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,), upscaler = of_bucket(bucket, jobs(1)), Upscaler.from_settings(TWICE)
    folder, wanted = Path("/missing"), settled(TWICE, upscaler)
    order = Order(wanted, 2, computes(upscaler), folder, (job.source,), job.target, None, "")
    assert Worker().start(order).refused == ""
    gone = location("s3://no-bucket-of-ours/a.png")
    for other in (replace(order, sources=(gone,)), replace(order, target=gone)):
        assert "its bucket does not exist" in Worker().start(other).refused
    absent = location(f"{bucket.url}/in/no.png")
    assert Worker().start(replace(order, sources=(absent,))).refused == f"it does not see {absent}"
    local = replace(order, sources=(Path("in/0.png"), job.source))
    assert Worker().start(local).refused == "it has no folder /missing"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts bytes")
def test_bytes_that_are_read_or_written_are_signs_of_life() -> None:
    worker = Worker()
    before = worker.signs().steps
    assert worker.signs().steps == before
    Path("large").write_bytes(bytes(2 << 20))
    assert worker.signs().steps == before + 1
    assert worker.signs().steps == before + 1


def test_a_full_scratch_disk_is_the_machines_own_and_ends_its_part(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("scratch") from OSError(errno.ENOSPC, "no space")

    (one, two), upscaler = of_bucket(bucket, jobs(2)), Upscaler.from_settings(TWICE)
    wanted = settled(TWICE, upscaler)
    order = Order(wanted, 2, computes(upscaler), Path.cwd(), (one.source,), one.target, None, "")
    for module, name in ((remote, "fetch"), (pictures, "write")):
        worker = Worker()
        assert worker.start(order).refused == ""
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            done = worker.picture(one)
        assert (done.full, done.lost, done.result and done.result.status) == (True, True, Status.FAILED)
    assert bucket.count("out") == 0
    worker = Worker()
    worker.start(order)
    done = worker.picture(two)
    assert (done.full, done.lost, done.result and done.result.status) == (False, False, Status.WRITTEN)


def test_what_differs_is_said() -> None:
    wanted = Computes("1", "openvino", "cpu", "int8", "bf16", "abc")
    assert differences(wanted, wanted) == ""
    assert differences(wanted, replace(wanted, finer="fp32")) == "it has finer fp32 where this run has bf16"
    assert differences(wanted, replace(wanted, models="x")) == "its model files are others"
    assert differences(wanted, replace(wanted, version="2")) == "it has srcli 2, and this run is of 1"


def test_auto_is_settled_once(tiny_models: Path) -> None:
    settings = Settings(tiny_models / "tiny-x2.onnx", 2)
    upscaler = Upscaler.from_settings(settings)
    found = settled(settings, upscaler)
    assert (found.backend, found.device) == ("openvino", "cpu")
    assert found.precision == upscaler.info.precision
    assert computes(Upscaler.from_settings(found)) == computes(upscaler)
