"""Numbers from the page: inside their limits whatever was typed, and each change said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from workbench.tabs.sample.settings import LIMITS, MAX_PROMPT, Settings, clamped, prompt_within, stop_strings

USUAL: dict[str, Any] = {name: limit.default for name, limit in LIMITS.items()}


def test_values_within_the_limits_are_kept_without_a_word() -> None:
    settings, words = clamped({**USUAL, "seed": 7, "temperature": 0}, "")
    assert words == [] and settings == Settings(seed=7, temperature=0.0)
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("name", LIMITS)
def test_values_outside_become_the_nearest_end_and_are_named(name: str) -> None:
    limit = LIMITS[name]
    for given, used in ((limit.low - 5, limit.low), (limit.high * 2 + 1, limit.high), (math.inf, limit.high)):
        settings, words = clamped({**USUAL, name: given})
        assert getattr(settings, name) == used and isinstance(getattr(settings, name), limit.kind)
        assert len(words) == 1 and words[0].startswith(f"{limit.label} ") and "is used" in words[0]


@pytest.mark.parametrize("given", [None, "", "abc", math.nan, True, "<img onerror=alert(1)>", [1]])
@pytest.mark.parametrize("name", LIMITS)
def test_what_is_no_number_becomes_the_default_and_is_named(name: str, given: Any) -> None:
    settings, words = clamped({**USUAL, name: given})
    assert getattr(settings, name) == LIMITS[name].default
    assert len(words) == 1 and LIMITS[name].label in words[0]


def test_a_part_of_a_token_or_of_a_seed_is_dropped_and_named() -> None:
    settings, words = clamped({**USUAL, "max_new_tokens": 3.7})
    assert settings.max_new_tokens == 3 and "not a whole number" in words[0]


def test_stop_strings_are_lines_with_escapes_for_line_ends() -> None:
    assert stop_strings("\\n\n. \n\nEnd\\t\n. ") == (("\n", ". ", "End\t"), "")
    kept, word = stop_strings("\n".join(f"s{i}" for i in range(20)))
    assert len(kept) == 8 and "first 8" in word


def test_a_prompt_beyond_all_contexts_keeps_its_end() -> None:
    assert prompt_within("short") == ("short", "")
    assert prompt_within(None) == ("", "")
    prompt, word = prompt_within("a" * MAX_PROMPT + "end")
    assert len(prompt) == MAX_PROMPT and prompt.endswith("end") and f"{MAX_PROMPT + 3:,}" in word
