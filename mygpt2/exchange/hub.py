"""Models on the Hugging Face hub: from a name to a folder whose bytes are the ones the hub lists.

Files go to huggingface_hub's own cache, so a model that any other program has fetched is there already. A name is
resolved to a commit first, and everything else is asked for at that commit.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from httpx import InvalidURL
from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from mygpt2.data.sources.hub.wire import proxy_advice
from mygpt2.errors import TryAgain, UserError, word
from mygpt2.exchange.huggingface import CONFIG, INDEX, WEIGHTS, is_huggingface, weight_files
from mygpt2.files import hub_checksum

GPT2_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
SHARDS = "model-*-of-*.safetensors"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repo>{_PART}(?:/{_PART})?)(?:@(?P<revision>[\w./-]{{1,128}}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# The base class of the HTTP library's errors: httpx's or its successor's, whichever huggingface_hub was built with.
_TRANSPORT: type[BaseException] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True)
class HubModel:
    """A model as a person named it."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Snapshot:
    """A model's files at a commit, verified."""

    folder: Path
    repo: str
    commit: str


def hub_model(spec: str) -> HubModel | None:
    """What `gpt2`, `gpt2-xl@REVISION` or `owner/name@REVISION` names; None for what cannot be a name on the hub."""
    m = _NAME.fullmatch(spec)
    if m is None or ".." in spec or "--" in m["repo"]:
        return None
    repo = GPT2_NAMES.get(m["repo"], m["repo"])
    return HubModel(repo, m["revision"] or "main") if "/" in repo else None


def fetch_model(model: HubModel) -> Snapshot:
    """The model's configuration, safetensors and tokenizer, from the cache or the hub, with every checksum checked.

    With HF_HUB_OFFLINE set only the cache is looked at. Raises UserError for what a person has to change, TryAgain
    when the hub is out of reach.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    cached = _cached(model)
    if cached is None or not (_offline() or _COMMIT.fullmatch(model.revision)):
        if _offline():
            raise UserError(f"{model} is not in the cache and HF_HUB_OFFLINE forbids to fetch it; unset that")
        try:
            cached = _download(model, endpoint)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, _TRANSPORT) as error:
            raise _advice(model, endpoint, error) from error
        except (ImportError, InvalidURL) as error:  # of the proxy that the environment names
            raise proxy_advice(error) from error
        except ValueError as error:
            if "proxy" not in str(error):
                raise
            raise proxy_advice(error) from error
        except OSError as error:
            raise UserError(
                f"cannot keep {model} in {constants.HF_HUB_CACHE}: {error.strerror or error}; make room, or set HF_HOME"
            ) from error
    _verify(cached, model)
    return Snapshot(cached, model.repo, cached.name)


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _cached(model: HubModel) -> Path | None:
    """The folder of a whole snapshot in the cache."""
    found = try_to_load_from_cache(model.repo, CONFIG, revision=model.revision)
    if not isinstance(found, str) or not is_huggingface(Path(found).parent):
        return None
    folder = Path(found).parent
    try:
        weight_files(folder)
    except UserError:  # shards that an interrupted download did not come to
        return None
    return folder


def _download(model: HubModel, endpoint: str) -> Path:
    """The snapshot of the commit the revision points to now. What is in the cache already is not fetched again."""
    info = HfApi(endpoint=endpoint).model_info(model.repo, revision=model.revision)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    if CONFIG not in names or not names & {WEIGHTS, INDEX}:
        old = next((name for name in sorted(names) if name.endswith((".bin", ".pt"))), None)
        raise UserError(
            f"{model} has no {WEIGHTS} with a {CONFIG}"
            + (f"; download {old} and the {CONFIG}, then: python -m mygpt2 import {word(old)} --to DIR" if old else "")
            + ("" if old else "; choose a model saved as safetensors")
        )
    weights = (WEIGHTS,) if WEIGHTS in names else (INDEX, SHARDS)
    if not sys.stderr.isatty():
        disable_progress_bars()
    folder = Path(
        snapshot_download(
            model.repo, revision=model.revision, endpoint=endpoint, allow_patterns=[CONFIG, *weights, *TOKENIZER_FILES]
        )
    )
    if folder.name != info.sha:  # the hub went away in between and an older copy was given instead
        raise TryAgain(f"{model} could not be fetched at {str(info.sha)[:12]}; the same command may work later")
    return folder


def _verify(folder: Path, model: HubModel) -> None:
    """Each file against the checksum the hub gave, which is the name it is kept under. Wrong ones are removed."""
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if len(blob.name) not in (40, 64) or not re.fullmatch("[0-9a-f]+", blob.name):
            continue  # a file system without links keeps the files themselves here
        if hub_checksum(blob, blob.name) != blob.name:
            path.unlink()
            if blob != path:
                blob.unlink(missing_ok=True)
            raise UserError(
                f"{path.name} of {model} did not have the hub's checksum and was removed; start the same command again"
            )


def _advice(model: HubModel, endpoint: str, error: BaseException) -> UserError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, GatedRepoError):
        return UserError(
            f"{model} is gated; accept its conditions at {endpoint}/{model.repo} and log in with `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(
            f"{model.repo} has no revision {model.revision}; give a branch, tag or commit, or leave it out"
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return UserError(
            f"{model.repo} is not a run, a folder or a model at {endpoint}, or a private one; check the name "
            f"({', '.join(GPT2_NAMES)}, owner/name), or log in with `hf auth login`"
        )
    reason = f"answers {status}" if status else "cannot be reached"
    return TryAgain(
        f"{model}: {endpoint} {reason}; check the network and HF_ENDPOINT, give a local folder, or use a copy in the "
        "cache with HF_HUB_OFFLINE=1"
    )
