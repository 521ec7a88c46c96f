"""A hub of models that is written to: repositories, commits, tags, and files by Git LFS, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
TOKEN = "hf_of_the_owner"


class WrittenHub:
    """`repos`: {name: {"private", "commits": {sha: files}, "main": sha, "tags": {name: sha}}}. `fail`: the parts of a
    path at which so many more requests are answered with a status: {"commit": (503, 9)}."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Any]] = {}
        self.stored: Files = {}
        self.fail: dict[str, tuple[int, int]] = {}
        self.seen: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WrittenHub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo: str, revision: str) -> Files:
        known = self.repos[repo]
        sha = known["main"] if revision == "main" else known["tags"].get(revision, revision)
        return known["commits"][sha]  # type: ignore[no-any-return]


class Handler(BaseHTTPRequestHandler):
    hub: WrittenHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_PUT = do_POST

    def answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append(f"{self.command} {path}")
        for part, (status, times) in self.hub.fail.items():
            if f"/{part}" in path and times > 0:
                self.hub.fail[part] = (status, times - 1)
                return self.send(status, b"{}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/upload/"):
            return self.send(401, b'{"error": "Invalid username or password."}')
        for pattern, act in ROUTES:
            if m := re.fullmatch(pattern, path):
                try:
                    return act(self, body, *m.groups())
                except KeyError:
                    return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode())

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            return self.send(409, json.dumps({"url": f"{self.hub.endpoint}/{name}"}).encode())
        first = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self.hub.repos[name] = {
            "private": asked.get("visibility") == "private" or asked.get("private"),
            "commits": {"0" * 40: first}, "main": "0" * 40, "tags": {},
        }  # fmt: skip
        return self.json({"url": f"{self.hub.endpoint}/{name}"})

    def refs(self, _: bytes, repo: str) -> None:
        tags = self.hub.repos[repo]["tags"].items()
        self.json({"branches": [], "converts": [], "tags": [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in tags]})  # fmt: skip

    def yaml(self, _: bytes) -> None:
        self.json({"warnings": []})

    def preupload(self, body: bytes, repo: str) -> None:
        self.json({"files": [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
             "shouldIgnore": False} for f in json.loads(body)["files"]]})  # fmt: skip

    def batch(self, body: bytes, repo: str) -> None:
        self.json({"transfer": "basic", "objects": [
            {"oid": o["oid"], "size": o["size"], "authenticated": True} | (
                {} if o["oid"] in self.hub.stored else
                {"actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{o['oid']}"}}})
            for o in json.loads(body)["objects"]]})  # fmt: skip

    def upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.send(400, b"{}")
        self.hub.stored[oid] = body
        return self.send(200, b"")

    def commit(self, body: bytes, repo: str) -> None:
        known = self.hub.repos[repo]
        files = dict(known["commits"][known["main"]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = hashlib.sha1(body).hexdigest()
        known["commits"][sha], known["main"] = files, sha
        self.json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha})

    def tag(self, body: bytes, repo: str, revision: str) -> None:
        known = self.hub.repos[repo]
        known["tags"][json.loads(body)["tag"]] = revision if revision in known["commits"] else known["main"]
        self.json({})

    def info(self, _: bytes, repo: str, revision: str | None) -> None:
        revision = revision or "main"
        known, files = self.hub.repos[repo], self.hub.files(repo, revision)
        sha = next(sha for sha, kept in known["commits"].items() if kept is files)
        self.json({"id": repo, "sha": sha, "private": known["private"], "tags": [],
                   "siblings": [{"rfilename": name} for name in sorted(files)]})  # fmt: skip

    def tree(self, _: bytes, repo: str, revision: str) -> None:
        self.json([entry(name, content) for name, content in self.hub.files(repo, revision).items()])

    def resolve(self, _: bytes, repo: str, revision: str, name: str) -> None:
        known, files = self.hub.repos[repo], self.hub.files(repo, revision)
        sha = next(sha for sha, kept in known["commits"].items() if kept is files)
        found = entry(name, files[name])
        etag = found.get("lfs", found)["oid"]
        self.send(200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Content-Type": "application/octet"})


def entry(name: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git}
    if name.endswith(".safetensors"):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
    return found


_REPO = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, Any]] = [
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.yaml),
    (rf"/api/models/{_REPO}/refs", Handler.refs),
    (rf"/api/models/{_REPO}/preupload/main", Handler.preupload),
    (rf"/api/models/{_REPO}/commit/main", Handler.commit),
    (rf"/api/models/{_REPO}/tag/([^/]+)", Handler.tag),
    (rf"/api/models/{_REPO}/tree/([^/]+)/?", Handler.tree),
    (rf"/api/models/{_REPO}(?:/revision/([^/]+))?", Handler.info),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"/upload/([0-9a-f]{64})", Handler.upload),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
]
