"""The report's JSON, key for key: other programs read it. The keys were taken down before the report became a type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mygpt2.__main__ import main
from tests.ripples.made import descent, noise, run_folder, wave

TOP = (
    "schema name significant can_say period_steps period_tokens period_ci period_ci_steps period_ci_unit amplitude "
    "amplitude_ci p_value share_of_file part_of_file share_of_slow_variance repetition attribution validation "
    "between_steps detection_limit forecast_larger signal pulses candidates forecast drift figures notes layout verdict"
)
INSIDE = {
    "detection_limit": "amplitude period_steps",
    "signal": "first_step last_step noise_sd null_coefficients null_order points residual_sd score steps_per_cell "
    "tokens_per_step whole_run_p",
    "candidates": "amplitude fits name p_value period_steps period_tokens ratio reason tested_on",
    "forecast": "amplitude amplitude_ci memory_bytes note order peak_to_peak periodic",
    "drift": "amplitude from_step p_value period_steps period_tokens to_step",
    "figures": "autocorrelation by_place_in_file folded forecast periodogram residual series sliding steps_per_cell "
    "validation",
    "figures.series": "loss step tokens trend",
    "figures.residual": "step value",
    "figures.periodogram": "amplitude level level_p null period_steps period_tokens",
    "figures.autocorrelation": "error lag_steps value without_line",
    "figures.folded": "error fit fit_phase mean phase",
    "figures.sliding": "amplitude best_amplitude best_period_steps period_steps window_steps",
    "figures.forecast": "amplitude buffer_documents memory_bytes",
    "figures.validation": "loss step",
    "figures.by_place_in_file": "error mean place rows under_buffer",
    "layout": "assumed buffer_documents document_tokens eval_interval file_tokens files lanes order row_group_tokens "
    "save_interval set_tokens streams window",
    "repetition": "correlation files found known lag lag_steps lag_tokens lags lags_steps limit near_by p_value passes "
    "thirds",
    "pulses": "cause first_step height height_ci kind main p_value period_steps period_tokens width_steps",
    "attribution": "properties r2 ripple_left row_groups rows",
    "attribution.properties": "name p_value partial_r2",
    "validation": "amplitude p_value points",
}


def keys(value: Any, at: str = "") -> dict[str, set[str]]:
    """By dotted place, every key that an object there has."""
    found: dict[str, set[str]] = {at: set(value)} if isinstance(value, dict) and at else {}
    inner = value.items() if isinstance(value, dict) else [("", item) for item in value]
    for name, item in inner:
        if isinstance(item, dict | list):
            for place, names in keys(item, f"{at}.{name}".strip(".")).items():
                found.setdefault(place, set()).update(names)
    return found


def test_the_json_has_the_keys_that_it_always_had(tmp_path: Path) -> None:
    n = 4000
    rows = ["step,tokens,loss,val_loss"]
    loss = descent(n) + noise(n, 1) + wave(n, 137.3, 0.06)
    for i in range(n):
        pulse, checked = 0.25 * (i % 100 == 17), f"{loss[i]:.4f}" if i % 20 == 0 else ""
        rows.append(f"{i},{i * 1000 + 1000},{loss[i] + pulse:.6f},{checked}")
    (tmp_path / "log.csv").write_text("\n".join(rows))
    (tmp_path / "short.csv").write_text("step,loss\n1,3\n2,2.9\n")
    run_folder(tmp_path / "run")
    reports = []
    for name, *more in (("log.csv", "--save-interval", "100"), ("run",), ("short.csv",)):
        assert main(["ripples", str(tmp_path / name), "--json", str(tmp_path / "out.json"), *more]) == 0
        reports.append(json.loads((tmp_path / "out.json").read_text()))
    for report in reports:
        assert list(report) == TOP.split()
    found = keys(reports)
    assert found.pop("figures.by_place_in_file.under_buffer") == {"0.1 of a file", "0.5 of a file"}
    assert found == {place: set(names.split()) for place, names in INSIDE.items()}
