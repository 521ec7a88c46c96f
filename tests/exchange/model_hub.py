"""The fake hub with models in it: the same protocol, under `api/models` and `owner/name/resolve`."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from tests.fake_hub import FakeHub


class ModelHub(FakeHub):
    """Repositories are models; safetensors files are kept with Git LFS, as on the hub."""

    def __init__(self, repos: dict[str, dict[str, bytes]], **options: Any) -> None:
        super().__init__(repos, **options)
        for server in self._servers:
            server.RequestHandlerClass = _for_models(server.RequestHandlerClass)

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = super().entry(path, content)
        if path.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
        return entry


def _for_models(handler: Any) -> Any:
    class Handler(handler):
        path: str

        def do_GET(self) -> None:
            path = self.path.replace("/api/models/", "/api/datasets/", 1)
            self.path = re.sub("^/([^/]+/[^/]+)/resolve/", r"/datasets/\1/resolve/", path)
            super().do_GET()

        do_HEAD = do_GET

    return Handler

    return Handler
