"""Report of `fastgrad compare`: agreement and speed of the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgrad.report.document import Cell, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import plural, seconds_text, three_digits

if TYPE_CHECKING:
    from fastgrad.jobs.compare import Comparison


def comparison_report(comparison: Comparison, parameters: dict[str, Any]) -> Report:
    """Report the agreement and the speed of the backends."""
    rows = []
    for row in comparison.backends:
        speed = comparison.speed(row)
        rows.append(
            {
                "backend": row.backend,
                "distance": row.distance,
                "same_bits_as": row.same_bits_as,
                "warm_up_s": row.warm_up,
                **({} if speed is None else speed._asdict()),
            }
        )
    agreement = Table(
        [*words("backend"), *numbers("largest distance / allowed"), *words("equal bits with")],
        title="Agreement with the reference",
    )
    for row in comparison.backends:
        agreement.add(row.backend, Cell.of(row.distance, "{:.3g}".format), ", ".join(row.same_bits_as) or "-")
    depth, ensemble, width = parameters["depth"], parameters["ensemble"], comparison.width
    if width == 1:
        what = f"{plural(depth, 'link')} x {plural(ensemble, 'chain')}"
    else:
        what = f"{plural(depth, 'layer')} of {width} units x {plural(ensemble, 'network')}"
    content: list[Part] = [Text(f"{comparison.job}: {what}"), agreement]
    if comparison.compared_depth == 0:
        content.append(Text("no distances: rounding decides the first layer already; bits are compared", "note"))
    elif comparison.compared_depth is not None and comparison.compared_depth < depth:
        content.append(Text(f"distances over {comparison.compared_depth} layers: beyond, rounding has grown", "note"))
    if comparison.agree:
        times = Table(
            [
                *words("backend"),
                *numbers("median", "min … max", "ns/link" if width == 1 else "ns/weight", "speedup", "min … max"),
            ],
            title=f"Time, {len(comparison.backends[0].seconds)} interleaved rounds",
        )
        for of in rows:
            low, high = of["min_s"], of["max_s"]
            times.add(
                of["backend"],
                Cell.of(of["median_s"], seconds_text),
                Cell(low, f"{seconds_text(low)} … {seconds_text(high)}"),
                Cell.of(of["ns_per_link"], three_digits),
                Cell.of(of["speedup"], "{:.2f}".format),
                Cell(of["speedup_low"], f"{of['speedup_low']:.2f} … {of['speedup_high']:.2f}"),
            )
        warm = ", ".join(f"{row.backend} {seconds_text(row.warm_up)}" for row in comparison.backends)
        content += [
            times,
            Text("speedup: t_numpy / t_backend, median and range over the rounds", "note"),
            Text(f"first call, compilation or its cache included: {warm}", "note"),
        ]
    else:
        content.append(
            Text.emphasizing(
                "",
                "The backends disagree",
                "; nothing was timed. Chains that expand (centered biases\n"
                "and weights beyond 4) may part by rounding alone; anything else is a defect.",
                role="warning",
            )
        )
    result: dict[str, Any] = {"job": comparison.job, "links": comparison.links, "agree": comparison.agree}
    if comparison.compared_depth is not None:
        result |= {"width": comparison.width, "compared_depth": comparison.compared_depth}
    result["backends"] = [
        {**of, "seconds": list(row.seconds)} for of, row in zip(rows, comparison.backends, strict=True)
    ]
    flat = ({**of, "same_bits_as": " ".join(of["same_bits_as"])} for of in rows)
    return Report("compare", parameters, result, flat, content, seed=parameters.get("seed"))
