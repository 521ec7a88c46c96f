"""A run's checkpoints on the Hugging Face hub: a model repository with one revision, a tag, for each of them.

Each revision is what `export` makes, with a manifest.json that has every file's SHA-256 and says of which checkpoint it
is. A tag is set last, so a revision that has one is whole: an upload that was cut off goes on with the same command.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx import InvalidURL
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars

from mygpt2.checkpoint.files import step_name
from mygpt2.errors import TryAgain, UserError, listed
from mygpt2.exchange.export import export_folder
from mygpt2.exchange.load import Loaded
from mygpt2.files import encode_json
from mygpt2.run_dir.scratch import scratch

PREFIX, MANIFEST = "hub:", "manifest.json"
HUBS_OWN = {"README.md", ".gitattributes"}  # what a repository that was just made on its page may have
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_TRANSPORT: type[BaseException] = HfHubHTTPError.__bases__[0]  # the HTTP library's, whichever it is


@dataclass(frozen=True)
class Published:
    """A revision of a repository: its tag and commit, and whether it was there already."""

    tag: str
    commit: str
    already: bool


def repository(to: str) -> str:
    """OWNER/NAME of `hub:OWNER/NAME`; UserError for anything else."""
    name = to.removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UserError(f"--to {to} is no model on the hub; give hub:OWNER/NAME, for example hub:me/tiny")
    return name


class Hub:
    """A model repository that is written to. UserError for what a person has to change, TryAgain for an outage."""

    def __init__(self, repo: str, public: bool) -> None:
        self.repo = repo
        self._endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._api = HfApi(endpoint=self._endpoint)
        disable_progress_bars()
        with self._answers():
            self._api.create_repo(repo, private=not public, exist_ok=True)
            self._tags = {tag.name: tag.target_commit for tag in self._api.list_repo_refs(repo).tags}

    def in_order(self, models: Sequence[str]) -> list[str]:
        """The models with those first whose revision is there: one that is another's is met before anything is sent."""
        return sorted(models, key=lambda spec: Path(spec).name not in self._tags)

    def publish(self, loaded: Loaded) -> Published:
        """Puts a model there as a revision of its own, unless that is there. UserError where the tag is another's."""
        tag = tag_of(loaded)
        if tag in self._tags:
            theirs = self._manifest(tag)
            if theirs.get("weights_sha256") != loaded.details["weights_sha256"]:
                raise UserError(
                    f"{self.repo} has a revision {tag} of other weights ({theirs.get('name', 'not of this program')}); "
                    "choose another repository"
                )
            return Published(tag, self._tags[tag], True)
        with scratch("hub") as aside:
            folder = export_folder(loaded, aside / "model")
            (folder / MANIFEST).write_bytes(encode_json(manifest(loaded, folder)))
            commit = self._upload(folder, loaded)
        with self._answers():
            self._api.create_tag(self.repo, tag=tag, revision=commit, exist_ok=True)
        return Published(tag, commit, False)

    def _upload(self, folder: Path, loaded: Loaded) -> str:
        names = sorted(path.name for path in folder.iterdir())
        with self._answers():
            there = set(self._api.list_repo_files(self.repo))
        ours = self._manifest("main").get("files")
        before = there & (set(ours) | {MANIFEST} if isinstance(ours, dict) else set())  # of the checkpoint before
        if foreign := sorted((there - before) & set(names) - HUBS_OWN):
            raise UserError(
                f"{self.repo} holds files of the same names that are not of this program ({listed(foreign)}), and "
                "nothing of others is overwritten; choose another repository"
            )
        with self._answers():
            gone = [CommitOperationDelete(name) for name in sorted(before - set(names))]
            add = [CommitOperationAdd(name, folder / name) for name in names]
            return self._api.create_commit(self.repo, [*gone, *add], commit_message=f"{loaded.name}").oid

    def _manifest(self, tag: str) -> dict[str, Any]:
        with self._answers(), tempfile.TemporaryDirectory() as aside:
            if not self._api.file_exists(self.repo, MANIFEST, revision=tag):
                return {}
            path = self._api.hf_hub_download(self.repo, MANIFEST, revision=tag, local_dir=aside)
            try:
                found = json.loads(Path(path).read_bytes())
            except (ValueError, RecursionError):
                return {}
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """What the hub refuses, as a sentence."""
        try:
            yield
        except OfflineModeIsEnabled:
            raise UserError(f"HF_HUB_OFFLINE forbids to write to {self.repo}; unset that") from None
        except (HfHubHTTPError, HFValidationError, _TRANSPORT, InvalidURL) as error:
            raise self._advice(error) from error

    def _advice(self, error: BaseException) -> UserError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
            return UserError(
                f"{self._endpoint} does not let you write to {self.repo}; log in with `hf auth login`, with a token "
                "that may write, and give a name that is yours"
            )
        if isinstance(error, HFValidationError) or (status and status < 500 and status != 429):
            said = str(error).strip().splitlines()[-1][:200]
            return UserError(f"{self._endpoint} refuses {self.repo} ({status or 'its name'}): {said}")
        reason = f"answers {status}" if status else "cannot be reached"
        return TryAgain(
            f"{self._endpoint} {reason}; the same command goes on where it was, check the network and HF_ENDPOINT"
        )


def tag_of(loaded: Loaded) -> str:
    """The name of a checkpoint's revision: its step, `step-00000140`; of a model without steps its weights' digest."""
    step = loaded.details.get("step")
    return step_name(step) if isinstance(step, int) else f"weights-{loaded.details['weights_sha256'][:12]}"


def manifest(loaded: Loaded, folder: Path) -> dict[str, Any]:
    """What a revision consists of: {"files": {name: {"bytes", "sha256"}}} and where it comes from."""
    files = {path.name: path for path in sorted(folder.iterdir())}
    told = {key: loaded.details.get(key) for key in ("step", "tokens", "parameters", "weights_sha256")}
    return {
        "schema": 1, "name": loaded.name, **told,
        "files": {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()},
    }  # fmt: skip


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
