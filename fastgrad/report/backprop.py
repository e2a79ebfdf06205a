"""Report of `fastgrad backprop`: gradients of given chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jobs.backprop import MEDIAN_ELEMENTS, log10_medians
from fastgrad.report.document import Binary, Cell, Curve, Figure, Format, Part, Report, Table, Text, numbers
from fastgrad.report.text import TABLE_ROWS, plural, power_of_ten, scaled_json, scaled_text
from fastgrad.scaled import Scaled
from fastgrad.summary import evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fastgrad.chain import Chain
    from fastgrad.files import ChainFile
    from fastgrad.jobs.backprop import Gradients


FIGURE_LINKS = 2000  # links, two a pixel
PART_ELEMENTS = 2**16  # elements, of arrays that are worked on part after part
WORKSPACE_BYTES = 32 * 2**20  # bytes, of the kernels' threads, the table and the plot
NPZ_BUFFER_BYTES = 32 * 2**20  # bytes; NumPy copies 16 MiB of an array at a time
TEXT_BYTES = 500  # bytes, of an element on its way to a .csv or .json: columns, lists of numbers and their text
MATPLOTLIB_BYTES = 50 * 2**20


def gradients_report(chain: Chain, gradients: Gradients, log10_bound: Any, parameters: dict[str, Any]) -> Report:
    """Report the gradients of a given chain or ensemble."""
    depth, ensemble = chain.depth, chain.ensemble
    parts = {"grad_weight": gradients.grad_weight, "grad_bias": gradients.grad_bias, "grad_x": gradients.grad_x}

    of_chains = "" if ensemble == 1 else ", median"
    names = ("grad_weight", "grad_bias") if ensemble == 1 else ("|grad_weight|, median", "|grad_bias|, median")
    table = Table(numbers("link", *names, f"bound{of_chains}"))
    listed = evenly_spaced(depth, TABLE_ROWS)
    for i, *log10 in zip(listed, *log10_medians(gradients, log10_bound, listed).values(), strict=True):
        cells = [Cell.of(value, power_of_ten) for value in log10]
        if ensemble == 1:  # the numbers themselves, with their signs
            given = gradients.grad_weight.flat(i), gradients.grad_bias.flat(i)
            cells[:2] = [Cell(cell.value, f"{g:.4e}") for cell, g in zip(cells, given, strict=False)]
        table.add(Cell.of(i + 1), *cells)
    chains = plural(ensemble, "chain")
    lines = []
    if ensemble == 1:
        output, grad_x = np.asarray(gradients.output).item(), gradients.grad_x.flat(0)
        lines.append(Text(f"output {output:.6g}, gradient with respect to the input {scaled_text(grad_x)}"))
    drawn = evenly_spaced(depth, FIGURE_LINKS)
    curves = log10_medians(gradients, log10_bound, drawn)
    figure = Figure(
        title=f"log10 |gradient| against the link: {chains} from {parameters['file']}",
        x_label="link",
        y_label="log10 |gradient|",
        x=1.0 + drawn.astype(np.float64),
        curves=[Curve("bound", "bound", curves["bound"]), Curve("gradient", "grad_bias", curves["grad_bias"])],
    )
    content: list[Part] = [
        Text(f"{chains} of {plural(depth, 'link')} from {parameters['file']}"),
        table,
        *lines,
        Text("bound: of |grad_bias|; -o FILE.npz, .csv or .json keeps every gradient", "note"),
        Text(f"backend {gradients.backend}", "note"),
        figure,
    ]
    arrays: dict[str, Any] = {"output": gradients.output}
    for name, scaled in parts.items():
        arrays[f"{name}_mantissa"], arrays[f"{name}_exponent"] = scaled.mantissa, scaled.exponent
    result = {"output": gradients.output, **{name: scaled_json(scaled) for name, scaled in parts.items()}}
    rows = _gradient_rows(gradients, log10_bound)
    return Report("backprop", parameters, result, rows, content, gradients.backend, arrays=arrays)


def gradients_bytes(file: ChainFile, form: Format | Binary, plot: bool, work_bytes: int) -> int:
    """Memory that `fastgrad backprop` takes as a whole: reading, gradients, the report and its writer.

    Parameters
    ----------
    file : ChainFile
    form : str
        Format of the result.
    plot : bool
        Whether a figure is drawn into a file.
    work_bytes : int
        Of the kernel, for each link of each chain.

    Returns
    -------
    int
        Bytes beside what the interpreter and its libraries take.
    """
    links, ensemble = file.links, file.ensemble
    gradients = file.kept_bytes + 32 * links + 40 * ensemble
    kernel = (work_bytes + 1) * links
    # The bound is one array; medians take the logarithms of as many chains as a link has, and their sorting.
    report = 8 * links + 64 * max(ensemble, MEDIAN_ELEMENTS)
    writer = {"table": 0, "npz": NPZ_BUFFER_BYTES}.get(form, TEXT_BYTES * PART_ELEMENTS)
    highest = max(file.load_bytes, gradients + max(kernel, report + writer))
    return highest + WORKSPACE_BYTES + (MATPLOTLIB_BYTES if plot else 0)


def _gradient_rows(gradients: Gradients, log10_bound: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """Blocks of rows, links first: the logarithms of all links would take half as much as the gradients."""
    ensemble = log10_bound.shape[1]
    flat = {
        name: Scaled.of_parts(scaled.mantissa.reshape(-1), scaled.exponent.reshape(-1))
        for name, scaled in (("grad_weight", gradients.grad_weight), ("grad_bias", gradients.grad_bias))
    }
    bound = log10_bound.reshape(-1)
    for first in range(0, len(bound), PART_ELEMENTS):
        part = slice(first, min(first + PART_ELEMENTS, len(bound)))
        link, member = np.divmod(np.arange(part.start, part.stop), ensemble)
        yield {
            "link": link + 1,
            **({"member": member} if ensemble > 1 else {}),
            **{f"{name}_{of}": getattr(flat[name], of)[part] for name in flat for of in ("mantissa", "exponent")},
            **{f"log10_{name}": scaled[part].log10() for name, scaled in flat.items()},
            "log10_bound": bound[part],
        }
