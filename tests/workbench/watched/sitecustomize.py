"""Loaded by a server under test at its start: writes down every name it looks up and every address it connects to."""

import os
import socket
import sys

_LOG = os.environ.get("WATCHED_NETWORK")
_HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None)


def _note(event: str, args: tuple) -> None:
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    if host not in _HERE and host != socket.gethostname():
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(f"{event} {host}\n")


if _LOG:
    sys.addaudithook(_note)
