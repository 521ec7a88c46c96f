"""A small server that speaks the hub's protocol for datasets, and fails on request.

In tests: `with FakeHub({"owner/name": {"data/a.parquet": b"..."}}) as hub: HubClient(hub.endpoint)`. By hand, in real
time: `python -m tests.fake_hub FOLDER --port 8000 --outage 60`, where FOLDER holds owner/name/files, and a client with
HF_ENDPOINT=http://127.0.0.1:8000.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hostile_hub import HOSTILE

LFS = (".parquet", ".gz", ".zst")


@dataclass
class Fault:
    """What happens to requests of a kind (`api`, `resolve`, `cdn`; a regular expression on the path), `times` times.

    kind: a status ("503", "404"), "reset", "short" (less than announced), "cut" (less than asked for),
    "200" (the whole file), "flip" (one wrong byte), "garbage", "shift" (another range), "etag" (a changed file),
    "stall" (no answer), or one of HOSTILE.
    """

    kind: str
    where: str = "resolve|cdn"
    times: int = 1
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    skip: int = 0  # matching requests that pass before
    at: float = 0.5  # where a "flip" is, as a share of the body


@dataclass(frozen=True)
class Request:
    method: str
    kind: str
    path: str
    range: str | None
    status: int
    token: str | None


class FakeHub:
    """Repositories as {name: {path: bytes}}; `cards` as {name: dict} for the dataset card's YAML head."""

    def __init__(
        self,
        repos: dict[str, dict[str, bytes]],
        *,
        cards: dict[str, dict[str, Any]] | None = None,
        now: Callable[[], float] = time.monotonic,
        cdn: bool = True,
        port: int = 0,
    ) -> None:
        self.repos, self.cards, self.now, self.cdn = repos, cards or {}, now, cdn
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: dict[str, tuple[int, str]] = {}  # repository: (status, X-Error-Code)
        self.signature = "s0"  # a signed address with another one has expired
        self.commit = "c0ffee" + "0" * 34
        self.page = 1000
        self._outage: tuple[int, float] | None = None
        self._since: float | None = None
        self._lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", p), self) for p in (port, 0)]  # the hub and its CDN
        self.endpoint, self.cdn_endpoint = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.closing.set()
            server.shutdown()
            server.server_close()

    def outage(self, seconds: float, status: int = 503) -> None:
        """Answer `status` to everything for so long, from the next request on."""
        self._outage, self._since = (status, seconds), None

    def count(self, kind: str = "") -> int:
        return sum(kind in ("", r.kind) for r in self.requests)

    def fault(self, kind: str, path: str) -> Fault | None:
        with self._lock:
            if self._outage:
                self._since = self.now() if self._since is None else self._since
                if self.now() - self._since < self._outage[1]:
                    return Fault(str(self._outage[0]))
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, kind) and re.search(fault.path, path):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def info(self, repo: str) -> dict[str, Any]:
        found: dict[str, Any] = {"id": repo, "sha": self.commit, "private": False, "gated": False, "disabled": False}
        found |= {"downloads": 0, "likes": 0, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z"}
        if repo in self.cards:
            found["cardData"] = self.cards[repo]
        return found | {"siblings": [{"rfilename": p} for p in sorted(self.repos[repo])]}

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git}
        if path.endswith(LFS):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
        return entry

    def tree(self, repo: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, content in sorted(self.repos[repo].items()):
            if not path.startswith(prefix):
                continue
            head, slash, _ = path[len(prefix) :].partition("/")
            if slash:
                found[prefix + head] = {"type": "directory", "path": prefix + head, "oid": "d" * 40, "size": 0}
            if recursive or not slash:
                found[path] = self.entry(path, content)
        return list(found.values())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], hub: FakeHub) -> None:
        super().__init__(address, Handler)
        self.hub = hub
        self.closing = threading.Event()  # ends answers that have no end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, and as its CDN."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        kind = "api" if path.startswith("/api/") else "cdn" if path.startswith("/cdn/") else "resolve"
        self.kind, self.shown = kind, path
        fault = self.server.hub.fault(kind, path)
        if fault and fault.kind.isdigit() and fault.kind != "200":
            return self.reply(int(fault.kind), b"trouble", fault.headers)
        if fault and fault.kind == "stall":
            time.sleep(3)
            self.close_connection = True
            return None
        if fault and fault.kind in HOSTILE:
            return HOSTILE[fault.kind](self)
        if kind == "api":
            return self.api(path, query)
        return self.file(kind, path, query, fault)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.kind, self.shown = "api", self.path
        m = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/[^/]+", unquote(urlsplit(self.path).path))
        if not m or m[1] not in self.server.hub.repos:
            return self.refuse(404, "RepoNotFound")
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = parse_qs(body.decode()).get("paths", [])
        files = self.server.hub.repos[m[1]]
        self.json([self.server.hub.entry(p, files[p]) for p in paths if p in files])

    def api(self, path: str, query: dict[str, list[str]]) -> None:
        m = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)/?(.*))?", path)
        if not m or m[1] not in self.server.hub.repos:
            return self.refuse(*self.server.hub.errors.get(m[1] if m else "", (401, "RepoNotFound")))
        if m[1] in self.server.hub.errors:
            return self.refuse(*self.server.hub.errors[m[1]])
        if m[3] and m[3] not in ("main", self.server.hub.commit):
            return self.refuse(404, "RevisionNotFound")
        if m[2] != "tree":
            return self.json(self.server.hub.info(m[1]))
        entries = self.server.hub.tree(m[1], m[4], query.get("recursive", ["false"])[0].lower() == "true")
        if not entries:
            return self.refuse(404, "EntryNotFound")
        start = int(query.get("cursor", ["0"])[0])
        more = {}
        if start + self.server.hub.page < len(entries):
            more["Link"] = (
                f'<{self.server.hub.endpoint}{path}?recursive=true&cursor={start + self.server.hub.page}>; rel="next"'
            )
        return self.json(entries[start : start + self.server.hub.page], more)

    def file(self, kind: str, path: str, query: dict[str, list[str]], fault: Fault | None) -> None:
        if kind == "cdn":
            if query.get("sig") != [self.server.hub.signature]:
                return self.refuse(403, "")
            content = next(
                (
                    c
                    for files in self.server.hub.repos.values()
                    for c in files.values()
                    if f"/cdn/{hashlib.sha256(c).hexdigest()}" == path
                ),
                None,
            )
            return self.refuse(404, "") if content is None else self.content(content, '"cdn-etag"', {}, fault)
        m = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path)
        content = self.server.hub.repos.get(m[1], {}).get(m[3]) if m else None
        if content is None or m is None:
            return self.refuse(404, "EntryNotFound")
        entry = self.server.hub.entry(m[3], content)
        etag = '"{}"'.format(entry.get("lfs", entry)["oid"] if not fault or fault.kind != "etag" else "0" * 64)
        headers = {"X-Repo-Commit": self.server.hub.commit}
        if "lfs" in entry and self.server.hub.cdn:
            headers |= {"X-Linked-ETag": etag, "X-Linked-Size": str(len(content))}
            sha = hashlib.sha256(content).hexdigest()
            return self.reply(
                302,
                b"",
                headers | {"Location": f"{self.server.hub.cdn_endpoint}/cdn/{sha}?sig={self.server.hub.signature}"},
            )
        return self.content(content, etag, headers, fault)

    def content(self, content: bytes, etag: str, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **headers}
        m = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not m or kind == "200":
            return self.reply(200, content, headers)
        if not m[1]:
            first, last = max(0, len(content) - int(m[2])), len(content) - 1
        else:
            first, last = int(m[1]), min(int(m[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        if kind == "shift":
            first, last = first + 1, min(last + 1, len(content) - 1)
        body = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        if kind == "flip":
            at = int(len(body) * fault.at) if fault else 0
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        if kind == "garbage":
            body = bytes(len(body))
        if kind == "cut":
            body = body[: len(body) // 2]
        self.reply(206, body, headers, broken=kind if kind in ("reset", "short") else "")

    def json(self, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})})

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, b"no", {"X-Error-Code": code})

    def reply(self, status: int, body: bytes, headers: dict[str, str], broken: str = "") -> None:
        self.server.hub.requests.append(
            Request(
                self.command,
                self.kind,
                self.shown,
                self.headers.get("Range"),
                status,
                self.headers.get("Authorization"),
            )
        )
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if broken:
            self.wfile.flush()
            self.close_connection = True
            if broken == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close() if broken == "reset" else self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client went away, or was sent away
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--outage", type=float, default=0.0, metavar="SECONDS", help="answer 503 from the 20th request on"
    )
    args = parser.parse_args()
    repos: dict[str, dict[str, bytes]] = {}
    for path in sorted(p for p in args.folder.rglob("*") if p.is_file()):
        owner, name, *rest = path.relative_to(args.folder).parts
        repos.setdefault(f"{owner}/{name}", {})["/".join(rest)] = path.read_bytes()
    with FakeHub(repos, port=args.port) as hub:
        print(hub.endpoint, flush=True)
        started = False
        while True:
            time.sleep(0.2)
            if args.outage and not started and hub.count() >= 20:
                started = True
                hub.outage(args.outage)


if __name__ == "__main__":
    main()
