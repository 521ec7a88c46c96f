"""Runs the page behind its guard until it is told to end; the runs go on without it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import UserError
from workbench import security

UPLOAD_LIMIT = "32mb"
FIRST_PORT, LAST_PORT = 7860, 7899
CLOSE_SECONDS = 3.0


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
    _quiet_libraries()
    password = security.read_password(options.password_file, options.host)
    runs = _folder(options.runs, make=True)
    roots = tuple(_folder(root, make=False) for root in options.data_roots)
    port = _free_port(options.host, options.port)

    from workbench.context import Context
    from workbench.jobs import Jobs

    jobs = Jobs(runs, options.slots)
    jobs.start()
    try:
        context = Context(runs, roots, jobs, security.Door(password), options.read_only)
        blocks = _launch(context, options, port)
        _announce(options, port, context.door.has_password)
        _wait_for_signal()
        closing = threading.Thread(target=_close, args=(blocks,), daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
    finally:
        jobs.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python would wait for every thread of the pool that still runs a handler; a server told to end was seen to stay
    # for minutes, holding the queue. Nothing is left to save: all state is in files.
    os._exit(0)


def _close(blocks) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(Exception):
        blocks.close(verbose=False)


def _launch(context, options: Options, port: int):  # type: ignore[no-untyped-def]
    from starlette.middleware import Middleware

    from workbench import look
    from workbench.app import build
    from workbench.sessions import keep_ids
    from workbench.shelf import Served, front

    keep_ids()
    blocks = build(context)
    blocks.queue(default_concurrency_limit=8)
    loopback = security.is_loopback(options.host)
    guard = Middleware(
        security.Guard,
        hosts=security.allowed_hosts(options.host, port, options.allow_hosts),
        any_host=not loopback and not options.allow_hosts,
        door=context.door,
    )
    shelf, early = front(guarded=context.door.has_password, root_path=options.root_path)
    served = Middleware(Served, shelf=shelf, early=early)
    blocks.launch(
        server_name=options.host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size=UPLOAD_LIMIT,
        show_error=False,
        theme=look.theme(),
        css=look.css(),
        head=look.head(),
        root_path=options.root_path or None,
        auth=context.door.login if context.door.has_password else None,
        auth_message="Any user name, and the password of this workbench.",
        app_kwargs={"middleware": [guard, served], "docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    return blocks


def _quiet_libraries() -> None:
    """No request to anybody, by any library; set before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(os.environ.get("TMPDIR", "/tmp")) / f"workbench-{os.getuid()}"))


def _folder(path: Path, make: bool) -> Path:
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
        found = path.expanduser().resolve()
        if not found.is_dir():
            raise UserError(f"{path} is not a folder; give one that exists")
        if make and not os.access(found, os.W_OK):
            raise UserError(f"--runs {path} cannot be written to; choose another folder")
    except OSError as error:
        raise UserError(f"{path} cannot be used: {error.strerror or error}; choose another folder") from None
    return found


def _free_port(host: str, wanted: int | None) -> int:
    """The port asked for (0: any), or the first free one. UserError where there is none."""
    for port in [wanted] if wanted is not None else range(FIRST_PORT, LAST_PORT + 1):
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return int(probe.getsockname()[1])
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
    while not ended.wait(1.0):  # a wait without a limit would not be interrupted by a signal
        pass
    print("workbench: ended; runs go on", file=sys.stderr, flush=True)
