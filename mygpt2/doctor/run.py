"""The order of the checks, and the guarantee that one which breaks does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mygpt2.doctor import FAIL, Finding
from mygpt2.doctor.compiled import CompileCheck
from mygpt2.doctor.machine import check_devices, check_folder, check_tokenizer, check_versions
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder

COMPILE_LIMIT_S = 13.0  # the whole report stays under 20 s


def diagnose(runs: Path, cache: Path | None = None, *, compile: bool = True) -> Iterator[Finding]:
    """Findings as they come. Nothing is left behind in `runs` or `cache` (unset: where caches live)."""

    def check_cache() -> Finding:
        return check_folder("cache folder", cache or cache_folder(), "MYGPT2_CACHE=DIR")

    compiling = CompileCheck(COMPILE_LIMIT_S) if compile else None
    try:
        yield from _guarded("versions", check_versions)
        yield from _guarded("devices", check_devices)
        yield from _guarded("tokenizer", check_tokenizer)
        yield from _guarded("runs folder", lambda: check_folder("runs folder", runs, "--runs DIR"))
        yield from _guarded("cache folder", check_cache)
        from mygpt2.device import choose_device  # torch comes after the first findings
        from mygpt2.doctor import network

        device = choose_device("auto")
        for name in ("causality", "learning", "determinism", "precision"):
            yield from _guarded(name, partial(getattr(network, f"check_{name}"), device))
        if compiling is not None:
            yield compiling.finish()
    finally:
        if compiling is not None:
            compiling.close()


def _guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What the check finds; an exception of any kind is itself a finding, with its type."""
    try:
        found = check()
    except UserError as error:
        return [Finding(FAIL, name, str(error))]
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return [Finding(FAIL, name, reason, "this part of the installation does not work; reinstall it")]
    return found if isinstance(found, list) else [found]
