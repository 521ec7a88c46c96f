"""Runs the page behind its guard until it is told to end; the runs go on without it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.errors import UserError
from mygpt2.machine import home_path
from workbench import security

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp

    from workbench.context import Context

UPLOAD_LIMIT = "32mb"
FIRST_PORT, LAST_PORT = 7860, 7899
CLOSE_SECONDS = 3.0
ARENAS = 2  # of the C library's memory
QUEUE_SECONDS = 0.05  # between two looks at what waits for a handler
PROGRESS_SECONDS = 0.5  # between two looks at whether a handler reports progress; none of ours does


@dataclass(frozen=True)
class Options:
    """What the command line asked for. `port` None: the first free one from 7860 up."""

    runs: Path
    data_roots: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int | None = None
    password_file: Path | None = None
    read_only: bool = False
    allow_hosts: tuple[str, ...] = ()
    root_path: str = ""
    slots: tuple[str, ...] | None = None


def serve(options: Options) -> int:
    """Serves until SIGINT or SIGTERM. UserError for a folder, password or port that cannot be used."""
    _few_arenas()
    _quiet_libraries()
    password = security.read_password(options.password_file, options.host)
    runs = _folder(options.runs, make=True)
    roots = tuple(_folder(root, make=False) for root in options.data_roots)
    listening = _listen(options.host, options.port)
    uploads = _uploads()

    from workbench import columns
    from workbench.context import Context
    from workbench.jobs import Jobs
    from workbench.jobs.host import HostLog
    from workbench.tabs.ripples.studies import Keeper

    jobs = Jobs(runs, options.slots)
    jobs.start()
    try:
        context = Context(runs, roots, jobs, security.Door(password), options.read_only)
        jobs.add_chore(Keeper(context))
        jobs.add_chore(columns.Keeper(context.runs))
        jobs.add_chore(HostLog(context.runs))
        port = int(listening.getsockname()[1])
        with running(application(page(context), options, port, context), listening):
            _announce(options, port, context.door.has_password)
            _wait_for_signal()
    finally:
        jobs.close()
        shutil.rmtree(uploads, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Python would wait for every thread of the pool that still runs a handler; a server told to end was seen to stay
    # for minutes, holding the queue. Nothing is left to save: all state is in files.
    os._exit(0)


def page(context: Context) -> gr.Blocks:
    """The page, ready for `application`."""
    from workbench.app import build

    _fetch_nothing()
    _hold_nothing()
    blocks = build(context)
    blocks.queue(default_concurrency_limit=8)
    blocks._queue.sleep_when_free = QUEUE_SECONDS  # Gradio looks a thousand times a second: 4 % of a core for nothing
    blocks._queue.progress_update_sleep_when_free = PROGRESS_SECONDS  # and a hundred times
    return blocks


def _fetch_nothing() -> None:
    """Gradio downloads whatever address a value names that looks like one of its files. None of ours has any.

    Values come from run folders too (samples, settings), and a file must not be able to make the server fetch an
    address. Called once, before the page is built.
    """
    from gradio import processing_utils

    def refuse(*_: Any, **__: Any) -> Any:
        raise UserError("the workbench fetches no files from addresses; upload the file, or name one inside the roots")

    for name in ("ssrf_protected_download", "async_ssrf_protected_download", "save_url_to_cache"):
        getattr(processing_utils, name)  # AttributeError in a Gradio that goes about it otherwise
        setattr(processing_utils, name, refuse)


def _hold_nothing() -> None:
    """No page holds a connection only to tell that it is open, as Gradio has it for a page with a gr.State.

    A browser has six connections to a server for all its windows: with such ones six tabs were dead, seen or not. What
    a closed page still had to be answered ends with the stream of its answers. Called once, before the page is built.
    """
    from gradio import utils

    assert callable(utils.connect_heartbeat)  # a Gradio that goes about it otherwise fails here
    utils.connect_heartbeat = lambda *_: False


def application(blocks: gr.Blocks, options: Options, port: int, context: Context) -> ASGIApp:
    """Blocks behind all that guards them, from the outside in: hosts and origins, the password, changes, files kept
    at hand, uploads, the addresses there are, the page's document; then Gradio."""
    import gradio as gr
    from fastapi import FastAPI

    from workbench import look, shelf
    from workbench.addresses import Addresses, Turns
    from workbench.api import PUBLIC
    from workbench.changes import Changes
    from workbench.document import Document
    from workbench.downloads import Downloads
    from workbench.login import Login
    from workbench.picker.incoming import Incoming
    from workbench.picker.receive import Receiving

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size=UPLOAD_LIMIT,
        show_error=False,
        theme=look.theme(),
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    # Before its own launch, which is not used here, Gradio takes any path that a request names for an upload: it would
    # copy the file into its cache and hand it to the handler.
    blocks.has_launched = True
    kept, early = shelf.front(root_path=options.root_path)
    refused = "this workbench was started with --read-only; start it without to upload" if context.read_only else ""
    inner = Receiving(Addresses(Turns(Document(app), PUBLIC)), Incoming(context.runs, context.data_roots), refused)
    served = Changes(Downloads(shelf.Served(inner, kept, early), context.run), context.runs)
    cookie = f"workbench-{port}"
    any_host = not security.is_loopback(options.host) and not options.allow_hosts
    return security.Guard(
        Login(served, context.door, cookie, options.root_path),
        security.allowed_hosts(options.host, port, options.allow_hosts),
        any_host,
        options.allow_hosts,
        options.root_path,
    )


@contextlib.contextmanager
def running(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """A server of `app` on a socket, in a thread of its own, once it answers. However long a busy machine takes."""
    import uvicorn

    # An answer's body is written behind its head. Under Nagle's algorithm it waits until the browser has acknowledged
    # the head, which it puts off for 40 ms: the 130 files of a page waited so, six at a time. asyncio turns it off for
    # sockets that name TCP, and those of `create_server` do not; a connection inherits it from what accepted it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False, lifespan="on")
    server = uvicorn.Server(config)

    def run() -> None:
        with contextlib.suppress(SystemExit):  # of a start that failed, which is told below
            server.run([listening])

    thread = threading.Thread(target=run, daemon=True, name="server")
    thread.start()
    while not server.started:
        thread.join(0.01)
        if not thread.is_alive():
            raise RuntimeError("the web server ended while it started; its own message stands above")
    try:
        yield
    finally:
        logging.getLogger("uvicorn.error").disabled = True  # each open page would end with a traceback of its own
        server.should_exit = True
        thread.join(CLOSE_SECONDS)


def _few_arenas() -> None:
    """Has glibc share its memory among the threads that answer: it gives each its own, and keeps what was freed there,
    which grew by tens of megabytes an hour. mallopt(3): M_ARENA_MAX = -8."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-8, ARENAS)


def _quiet_libraries() -> None:
    """No request to anybody, by any library; set before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Gradio makes HTTP clients while it is imported, and those fail on a SOCKS proxy without a package that only
    # proxies need. This process asks nobody through them; what a run or the hub needs is set again.
    proxies = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        import gradio  # noqa: F401
    finally:
        os.environ.update(proxies)


def _uploads() -> str:
    """A folder for uploads that nobody else can have made before: its name is not to be guessed. Removed at the end."""
    _sweep(Path(tempfile.gettempdir()))
    try:
        os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix=f"workbench-{os.getpid()}-")
    except OSError as error:
        raise UserError(f"no temporary folder can be made: {error}; set TMPDIR to a folder with room") from None
    return folder


def _sweep(folder: Path) -> None:
    """Removes the uploads of servers that were killed: this user's, and their process is gone."""
    import psutil

    with contextlib.suppress(OSError):
        for path in folder.glob("workbench-*-*"):
            found, status = re.fullmatch(r"workbench-(\d+)-\w+", path.name), path.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if found and ours and not psutil.pid_exists(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def _folder(path: Path, make: bool) -> Path:
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
        found = home_path(path).resolve()
        if not found.is_dir():
            raise UserError(f"{path} is not a folder; give one that exists")
        if make and not os.access(found, os.W_OK):
            raise UserError(f"--runs {path} cannot be written to; choose another folder")
    except OSError as error:
        raise UserError(f"{path} cannot be used: {error.strerror or error}; choose another folder") from None
    return found


def _listen(host: str, wanted: int | None) -> socket.socket:
    """A socket on the port asked for (0: any), or on the first free one. UserError where there is none."""
    for port in [wanted] if wanted is not None else range(FIRST_PORT, LAST_PORT + 1):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family, backlog=2048)
        except socket.gaierror as error:
            raise UserError(f"--host {host} is not an address of this machine: {error.strerror}") from None
        except (OSError, OverflowError) as error:
            problem = error
    which = f"--port {wanted}" if wanted is not None else f"ports {FIRST_PORT} to {LAST_PORT}"
    raise UserError(f"{which} on {options_host(host)} cannot be used: {problem}; choose another with --port")


def options_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(options: Options, port: int, guarded: bool) -> None:
    shown = options_host("127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host)
    print(f"workbench: http://{shown}:{port}/  (Ctrl-C ends it; runs go on)", flush=True)
    if not guarded:
        print(
            "workbench: whoever opens the page can run training code here. From another machine:\n"
            f"           ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}",
            flush=True,
        )


def _wait_for_signal() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    print("workbench: ended; runs go on", file=sys.stderr, flush=True)
