"""Answers that no hub should give, each as a function of a request's handler (`fake_hub.Handler`)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

PAUSE = 0.02  # seconds between two bytes of a trickle


def _head(handler: Any, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.flush()


def _send(handler: Any, data: bytes, pause: float = 0.0) -> bool:
    """Send, and whether to go on."""
    handler.wfile.write(data)
    handler.wfile.flush()
    return not handler.server.closing.wait(pause) if pause else not handler.server.closing.is_set()


def _range(handler: Any) -> dict[str, str]:
    """The head that makes any body look like the right answer."""
    first, _, last = handler.headers.get("Range", "bytes=0-999999").removeprefix("bytes=").partition("-")
    return {"Content_Range": f"bytes {first}-{last}/{_size(handler)}", "ETag": '"cdn-etag"'}


def _size(handler: Any) -> int:
    """Of the file that these tests read, which is the largest."""
    return max(len(content) for files in handler.server.hub.repos.values() for content in files.values())


def trickle_body(handler: Any) -> None:
    _head(handler, 206 if handler.headers.get("Range") else 200, Content_Length="1000000", **_range(handler))
    while _send(handler, b" ", PAUSE):
        pass


def trickle_head(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while _send(handler, b"x", PAUSE):
        pass


def endless_head(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while _send(handler, b"X-More: " + b"x" * 1000 + b"\r\n"):
        pass


def endless_body(handler: Any) -> None:
    _head(handler, Connection="close")
    handler.wfile.write(b"[")
    while _send(handler, b'"more and more", ' * 4000):
        pass


def gzip_bomb(handler: Any) -> None:
    _head(handler, Content_Encoding="gzip", Connection="close")
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    while _send(handler, packer.compress(b" " * (1 << 22))):
        pass


def packed_twice(handler: Any) -> None:
    body = gzip.compress(gzip.compress(b"[]"))
    _head(handler, Content_Encoding="gzip, gzip", Content_Length=str(len(body)))
    handler.wfile.write(body)


def packed_range(handler: Any) -> None:
    body = gzip.compress(bytes(1000))
    _head(handler, 206, Content_Encoding="gzip", Content_Length=str(len(body)), **_range(handler))
    handler.wfile.write(body)


def brackets(handler: Any) -> None:
    body = b"[" * 200_000
    _head(handler, Content_Length=str(len(body)))
    handler.wfile.write(body)


def junk_range(handler: Any) -> None:
    _head(handler, 206, Content_Range="bytes \xb2-\xb3/*", Content_Length="5", ETag='"cdn-etag"')
    handler.wfile.write(b"hello")


def loop(handler: Any) -> None:
    _head(handler, 302, Location=handler.path, Content_Length="0")


def bad_address(handler: Any) -> None:
    _head(handler, 302, Location="http://[::1", Content_Length="0")


def no_http(handler: Any) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    handler.close_connection = True


HOSTILE: dict[str, Callable[[Any], None]] = {
    function.__name__: function
    for function in (
        trickle_body, trickle_head, endless_head, endless_body, gzip_bomb, packed_twice, packed_range, brackets,
        junk_range, loop, bad_address, no_http,
    )
}  # fmt: skip
