"""Agreement and speed of the backends."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from fastgrad.report.document import Report
from fastgrad.report.text import plural, seconds_text, table_of, three_digits

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fastgrad.jobs.compare import Comparison


def comparison_report(comparison: Comparison, parameters: dict[str, Any]) -> Report:
    """Agreement and speed of the backends."""
    rows = []
    for row in comparison.backends:
        timed: dict[str, Any] = {}
        if row.seconds:
            speedup = comparison.speedup(row)
            timed = {
                "median_s": statistics.median(row.seconds),
                "min_s": min(row.seconds),
                "max_s": max(row.seconds),
                "ns_per_link": 1e9 * statistics.median(row.seconds) / comparison.links,
                "speedup": statistics.median(speedup),
                "speedup_low": min(speedup),
                "speedup_high": max(speedup),
            }
        rows.append(
            {
                "backend": row.backend,
                "distance": row.distance,
                "same_bits_as": row.same_bits_as,
                "warm_up_s": row.warm_up,
                **timed,
            }
        )
    agreement = table_of(
        "Agreement with the reference", "backend", "largest distance / allowed", "equal bits with", left=(0, 2)
    )
    for row in comparison.backends:
        agreement.add_row(row.backend, f"{row.distance:.3g}", ", ".join(row.same_bits_as) or "-")
    human: list[RenderableType] = [
        f"{comparison.job}: {plural(parameters['depth'], 'link')} x {plural(parameters['ensemble'], 'chain')}",
        agreement,
    ]
    if comparison.agree:
        times = table_of(
            f"Time, {len(comparison.backends[0].seconds)} interleaved rounds",
            "backend", "median", "min … max", "ns/link", "speedup", "min … max",
        )  # fmt: skip
        for times_row in rows:
            times.add_row(
                times_row["backend"],
                seconds_text(times_row["median_s"]),
                f"{seconds_text(times_row['min_s'])} … {seconds_text(times_row['max_s'])}",
                three_digits(times_row["ns_per_link"]),
                f"{times_row['speedup']:.2f}",
                f"{times_row['speedup_low']:.2f} … {times_row['speedup_high']:.2f}",
            )
        human.append(times)
        warm = ", ".join(f"{row.backend} {seconds_text(row.warm_up)}" for row in comparison.backends)
        human.append("[dim]speedup: t_numpy / t_backend, median and range over the rounds[/]")
        human.append(f"[dim]first call, compilation or its cache included: {warm}[/]")
    else:
        human.append("[bold red]The backends disagree[/]; nothing was timed. Chains that expand (centered biases")
        human.append("and weights beyond 4) may part by rounding alone; anything else is a defect.")
    result: dict[str, Any] = {"job": comparison.job, "links": comparison.links, "agree": comparison.agree}
    result["backends"] = [
        {**row, "seconds": list(of.seconds)} for row, of in zip(rows, comparison.backends, strict=True)
    ]
    flat = ({**row, "same_bits_as": " ".join(row["same_bits_as"])} for row in rows)
    return Report("compare", parameters, result, flat, human, seed=parameters.get("seed"))
