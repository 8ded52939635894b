"""Tiny random networks for all tests that need a model, so that none depends on shipped weights."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import buckets
import pytest
import tiny_networks
from faulty_engines import Ahead, Fault, Faulty, Inject
from hypothesis import HealthCheck, settings

from srcli.backends import registry
from srcli.backends.base import Engine
from srcli.models import catalog
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

settings.register_profile(
    "srcli", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("srcli")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell in the background started the tests
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def user_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's own models, so that what lies in the real one changes no test."""
    folder = tmp_path_factory.mktemp("user") / "models"
    monkeypatch.setenv(catalog.USER_FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The URL of a server of S3 on this machine."""
    with buckets.served() as url:
        yield url


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> buckets.Bucket:
    """A new bucket, with the environment that reaches it."""
    return buckets.bucket_of(s3_server, monkeypatch)


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests keep for each other stays out of the user's cache."""
    monkeypatch.setenv("SRCLI_CACHE", str(_cache))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the networks tiny-x2, tiny-x3, tiny-x4: two blocks, eight features, random weights."""
    folder = tmp_path_factory.mktemp("models")
    for scale in (2, 3, 4):
        tiny_networks.write(folder, tiny_networks.tiny_spec(scale), seed=scale)
    return folder


@pytest.fixture
def tiny_catalog(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny networks in place of the shipped ones: `Upscaler("tiny", 4)` and family "edsr" find them."""
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tiny_models)
    return tiny_models


@pytest.fixture(autouse=True)
def _messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What srcli logs for its users is in `caplog.messages`."""
    caplog.set_level(logging.INFO, "srcli")


@pytest.fixture(params=[Faulty, Ahead], ids=["one window at a time", "three windows at a time"])
def inject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Inject:
    """Puts a fault into every engine loaded from then on, which takes one window at a time or several."""
    real = registry.load

    def install(fault: Fault) -> None:
        def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
            engine: Engine = request.param(real(name, path, spec, options), fault)
            return engine

        monkeypatch.setattr(registry, "load", load)

    return install
