"""Processes on the nodes of a Ray cluster: the only module that imports Ray.

Ray starts, places and ends processes. It restarts none and repeats nothing: `srcli.jobs.cluster_run` does.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

from srcli.errors import BackendUnavailableError, MissingExtraError, SrcliError, UsageError, shown
from srcli.io.storage import abandoned
from srcli.jobs.cluster_nodes import LostError, Node, Share
from srcli.jobs.cluster_worker import Worker

log = logging.getLogger(__name__)

WHERE = ("local", "auto")
_OBJECTS = 80 << 20
"""Bytes of shared memory for a node's objects, of which there are few: paths and results are small."""
_ANSWER = 10.0
"""Seconds in which the address of a cluster answers."""
_CALLS = 8
"""Calls that a process takes at once: units, and questions how it goes."""
_TOKEN = Path("~/.ray/auth_token")
_USUAL_PORT = 6379
_SAID = "stderr"
_PREFIX, _LOCK = "srcli-ray-", "lock"
_YOUNG = 60.0
"""Seconds that a run has to lock its new folder."""
_ENDING = (0.0, 0.2, 1.0, 3.0)
"""Seconds before each try to remove what a cluster leaves."""


class RayCluster:
    """The cluster that this process is connected to; see `connected`.

    Args:
        ray: the module.
        worker: what each process holds.
    """

    def __init__(self, ray: Any, worker: type[Worker] = Worker) -> None:
        self._ray, self._worker = ray, worker

    def nodes(self) -> list[Node]:
        """The nodes that live."""
        return [
            Node(
                one["NodeID"],
                one["NodeManagerHostname"],
                one["NodeManagerAddress"],
                int(one["Resources"].get("CPU", 0)),
                int(one["Resources"].get("GPU", 0)),
                int(one["Resources"].get("memory", 0)),
            )
            for one in self._ray.nodes()
            if one["Alive"]
        ]

    def start(self, node: Node, share: Share) -> Any:
        """A process on a node; it begins as soon as its share of the node is free."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {"num_cpus": share.cpus, "num_gpus": share.gpus}
        pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
        actor = self._ray.remote(self._worker).options(
            **options, max_restarts=0, max_task_retries=0, max_concurrency=_CALLS, scheduling_strategy=pinned
        )
        return actor.remote()

    def call(
        self, process: Any, method: str, arguments: tuple[Any, ...], answered: Callable[[Any], None]
    ) -> None:
        """Call a method of the `Worker` in a process.

        Args:
            process: from `start`.
            method: its name.
            arguments: pickled.
            answered: called in another thread with the result, or with the error.
        """
        from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

        def pass_on(future: Any) -> None:
            error = future.exception()
            if error is None:
                answered(future.result())
            elif isinstance(error, RayTaskError) or not isinstance(error, RayError):
                answered(error)
            else:
                answered(LostError(_why(error), silent=isinstance(error, ActorUnavailableError)))

        getattr(process, method).remote(*arguments).future().add_done_callback(pass_on)

    def put(self, value: Any) -> Any:
        """A value that many calls take, sent once to each node."""
        return self._ray.put(value)

    def end(self, process: Any) -> None:
        """Kill a process."""
        with suppress(Exception):  # it may be gone
            self._ray.kill(process)


def _why(error: Exception) -> str:
    """The line that says why a process died."""
    text = str(error)
    if "memory" in text.lower() and "out of memory" in text.lower():
        return "ran out of memory"
    if "ModuleNotFoundError" in text or "ImportError" in text:
        return text.strip().splitlines()[-1]
    return "died"


def check(where: str) -> None:
    """Refuse what `connected` does not know, and what is not installed.

    Raises:
        UsageError, MissingExtraError: see there.
    """
    if where not in WHERE:
        raise UsageError(f"--cluster {where!r} is not known.", f"Choose from {', '.join(WHERE)}.")
    if find_spec("ray") is None:
        raise MissingExtraError("Ray, which --cluster uses,", "cluster")


@contextmanager
def connected(where: str) -> Iterator[RayCluster]:
    """A cluster of this machine alone, which ends with the block; or the one that runs.

    Args:
        where: "local"; or "auto": the cluster at $RAY_ADDRESS, else the one that this machine is a node of.

    Raises:
        UsageError: there is none at the address, or it refuses the token.
        MissingExtraError: Ray is not installed.
    """
    check(where)
    with _private_folder() as folder:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        begin = _local if where == "local" else _running
        ray = begin(folder)
        try:
            yield RayCluster(ray)
        finally:
            ray.shutdown()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """For this run alone, under a short name: sockets have paths of at most 107 bytes."""
    from filelock import FileLock

    root = Path("/tmp") if Path("/tmp").is_dir() else Path(gettempdir())
    _sweep(root)
    folder = Path(mkdtemp(prefix=_PREFIX, dir=root))
    lock = FileLock(folder / _LOCK)
    lock.acquire()
    try:
        yield folder
    finally:
        lock.release()
        for wait in _ENDING:  # processes of Ray may still write
            time.sleep(wait)
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break


def _sweep(root: Path) -> None:
    """Remove the folders of killed runs: a run that lives has locked its own."""
    from filelock import FileLock, Timeout

    for folder in abandoned(root, _PREFIX, _YOUNG):
        with suppress(OSError, Timeout), FileLock(folder / _LOCK).acquire(blocking=False):
            shutil.rmtree(folder, ignore_errors=True)


def _local(folder: Path) -> Any:
    """Start Ray on this machine, on its loopback address, with a token that only this user reads."""
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it listens on all addresses
    }
    os.environ.pop("RAY_AUTH_TOKEN", None)
    ray = _import()
    options = {"include_dashboard": False, "object_store_memory": _OBJECTS, "_temp_dir": str(folder / "ray")}
    try:
        _init(ray, folder, address="local", _node_ip_address="127.0.0.1", **options)
    except Exception as error:
        raise BackendUnavailableError(f"Ray does not start on this machine: {_first_line(error)}.") from error
    return ray


def _running(folder: Path) -> Any:
    """Connect to the cluster that runs."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    address = os.environ.get("RAY_ADDRESS", "auto")
    if os.environ["RAY_AUTH_MODE"] != "token":
        log.warning("RAY_AUTH_MODE is %s: whoever reaches the cluster's ports can run anything on it.",
                    os.environ["RAY_AUTH_MODE"])  # fmt: skip
    else:
        _check_token()
    if address != "auto":
        _check_reached(address)
    ray = _import()
    try:
        _init(ray, folder, address=address)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        text = f"{error} {(folder / _SAID).read_text(errors='replace')}"
        if "uthenticat" in text:
            raise _refused(address) from error
        if "Version mismatch" in text:
            raise UsageError(
                f"The cluster has another version of Ray or Python: {_first_line(error)}",
                "Install the same on all machines.",
            ) from error
        raise _unreached(address, _first_line(error)) from error
    return ray


def _import() -> Any:
    """Ray, which then says nothing on stdout or stderr: that is for paths, and what it tells the run says."""
    ray: Any = import_module("ray")
    with suppress(AttributeError):  # a cluster that this process was in before had other settings
        ray._raylet.Config.initialize("")
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    with suppress(AttributeError):
        ray._private.worker.print_worker_logs = _say_nothing
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


def _say_nothing(*_: object) -> None:
    """In place of what prints."""


def _init(ray: Any, folder: Path, **options: Any) -> None:
    """Connect; signals stay with whoever had them, and what Ray says on stderr meanwhile goes to a file."""
    before, stderr = signal.getsignal(signal.SIGTERM), os.dup(2)
    with (folder / _SAID).open("wb") as said:
        os.dup2(said.fileno(), 2)
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False, **options)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, before)


def _check_token() -> None:
    """Refuse to go without a token; take away a token file's rights that are not its owner's.

    Raises:
        UsageError: there is none.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _TOKEN).expanduser()
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(
            f"There is no token for the cluster: {shown(path)} cannot be read ({error.strerror}).",
            "Copy the file that the cluster was started with to this place, or set RAY_AUTH_TOKEN_PATH. "
            "Without a cluster, say --cluster local.",
        ) from error
    if sys.platform != "win32" and found.st_mode & 0o077:
        log.warning("%s: others could read this token; now only you can.", shown(path))
        with suppress(OSError):
            path.chmod(0o600)


def _check_reached(address: str) -> None:
    """Refuse an address at which nothing answers: Ray itself waits for minutes.

    Raises:
        UsageError: nothing does.
    """
    host, _, port = address.rpartition(":") if ":" in address else (address, "", str(_USUAL_PORT))
    if "/" in address or not port.isdecimal():
        raise UsageError(f"RAY_ADDRESS={address} is no address.", f"Write it like 10.0.0.1:{_USUAL_PORT}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except OSError as error:
        raise _unreached(address, error.strerror or str(error)) from error


def _unreached(address: str, why: str) -> SrcliError:
    if address == "auto":
        return UsageError(
            "No cluster runs on this machine.",
            "Start one with `ray start`, set RAY_ADDRESS, or use --cluster local.",
        )
    return UsageError(
        f"The cluster at {address} cannot be reached ({why}).", "Is it started, and the address right?"
    )


def _refused(address: str) -> SrcliError:
    where = "on this machine" if address == "auto" else f"at {address}"
    return UsageError(
        f"The cluster {where} refuses the token.",
        "Copy the file that the cluster was started with to ~/.ray/auth_token.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
