"""The rooms of the package, and who imports whom, as docs/images/rooms.svg: drawn from the imports.

``python docs/rooms.py`` draws the picture again, ``python docs/rooms.py --check`` fails where it is no longer what the
sources say, or where docs/house.md has no sentence for a room.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "fastgrad"
PICTURE = DOCS / "images" / "rooms.svg"
PAGE = DOCS / "house.md"

FACE = "fastgrad"  # the public names, in __init__.py
# Files whose names begin so are no rooms: one line that calls cli, the version, the compiled half of kernels.
UNSEEN = "_"

Graph = dict[str, set[str]]

WIDTH = 960  # pixels, as all lengths below
BETWEEN_FLOORS, BETWEEN_ROOMS = 54, 18
LINE, LETTER, SMALL_LETTER = 17, 8.6, 6.6
LIST_COLUMNS = 46  # letters in a line of a room's files
BEND = ">"  # in the name of a place where an arrow bends

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14">
<title>The rooms of fastgrad: an arrow goes from a room to one that it imports</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0,0 L8,4 L0,8 z" fill="#667"/></marker></defs>
<rect width="{width}" height="{height}" fill="#fff"/>"""


def rooms(package: Path) -> dict[str, list[str]]:
    """Return the modules of each room: a file of the package or a folder, by the name that is imported."""
    found = {FACE: ["__init__"]}
    for path in sorted(package.iterdir()):
        if path.suffix == ".py" and not path.stem.startswith(UNSEEN):
            found[path.stem] = []
        elif (path / "__init__.py").exists():
            found[path.name] = sorted(file.stem for file in path.rglob("*.py") if file.stem != "__init__")
    return found


def imports(tree: ast.AST, is_face: bool, within: bool = False) -> Iterator[tuple[str, list[str], bool]]:
    """Yield what a module imports, the names taken, and if only when a function runs; not what is for types alone.

    The face imports what it shows to checkers, when it is used.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            if is_face:
                yield from imports(node, is_face, within=True)
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", [alias.name for alias in node.names], within
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], within
        yield from imports(node, is_face, within or isinstance(node, ast.FunctionDef))


def graphs_of(package: Path, names: dict[str, list[str]]) -> tuple[Graph, Graph]:
    """Return the rooms that each room imports, and those that it imports when it is loaded."""
    graph: Graph = {name: set() for name in names}
    loaded: Graph = {name: set() for name in names}
    for file in sorted(package.rglob("*.py")):
        inner = file.relative_to(package).with_suffix("").parts
        if inner[0].startswith(UNSEEN) and inner != ("__init__",):
            continue
        room = FACE if inner == ("__init__",) else inner[0]
        for module, taken, within in imports(ast.parse(file.read_text(encoding="utf-8")), room == FACE):
            top, *rest = module.split(".")
            if top != package.name:
                continue
            # "from fastgrad import laws" takes a module, "from fastgrad import sweep" a public name
            heads = rest[:1] or [name if name in names or name.startswith(UNSEEN) else FACE for name in taken] or [FACE]
            found = {head for head in heads if head in names and head != room}
            graph[room] |= found
            if not within:
                loaded[room] |= found
    return graph, loaded


def climbs_of(graph: Graph, loaded: Graph) -> set[tuple[str, str]]:
    """Return the arrows that close a circle: those of functions are laid last, so that they are the ones."""
    laid: Graph = {name: set() for name in graph}

    def reaches(start: str, end: str) -> bool:
        return start == end or any(reaches(inner, end) for inner in laid[start])

    climbs: set[tuple[str, str]] = set()
    for start, end in sorted(
        ((a, b) for a in graph for b in graph[a]), key=lambda ab: (ab[1] not in loaded[ab[0]], ab)
    ):
        if reaches(end, start):
            climbs.add((start, end))
        else:
            laid[start].add(end)
    return climbs


def floors_of(graph: Graph) -> list[list[str]]:
    """Return the floors from the ground up: a room stands just above the highest of those it imports."""
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in heights:
            heights[name] = 1 + max((height(inner) for inner in graph[name]), default=-1)
        return heights[name]

    floors: list[list[str]] = [[] for _ in range(1 + max(map(height, graph)))]
    for name in sorted(graph):
        floors[height(name)].append(name)
    return floors


def reduced(graph: Graph) -> Graph:
    """Leave out each arrow that a longer way says too."""

    def reached(name: str) -> set[str]:
        return graph[name].union(*(reached(inner) for inner in graph[name]))

    return {name: {to for to in inner if not any(to in reached(by) for by in inner)} for name, inner in graph.items()}


def in_order(floors: list[list[str]], arrows: Graph) -> list[list[str]]:
    """Order the rooms of each floor by the mean place of their neighbors, so that arrows are short."""
    near = {name: arrows[name] | {other for other in arrows if name in arrows[other]} for name in arrows}
    place = {name: (i + 0.5) / len(floor) for floor in floors for i, name in enumerate(floor)}
    for _ in range(20):
        for floor in floors:
            floor.sort(key=lambda name: sum(place[other] for other in sorted(near[name])) / max(1, len(near[name])))
            place.update((name, (i + 0.5) / len(floor)) for i, name in enumerate(floor))
    return floors


def lines_of(files: list[str]) -> list[str]:
    """Break a room's files into lines."""
    lines: list[str] = []
    for file in files:
        if lines and len(lines[-1]) + len(file) + 2 <= LIST_COLUMNS:
            lines[-1] += f"  {file}"
        else:
            lines.append(file)
    return lines


def with_bends(floors: list[list[str]], arrows: Graph) -> tuple[list[list[str]], Graph]:
    """Let an arrow that passes floors bend on each of them, so that it gets a place between the rooms there."""
    at = {name: i for i, floor in enumerate(floors) for name in floor}
    floors = [[*floor] for floor in floors]
    bent: Graph = {name: set() for name in arrows}
    for start, ends in arrows.items():
        for end in sorted(ends):
            before = start
            for i in range(at[start] - 1, at[end], -1):
                bend = f"{start}{BEND}{end}{BEND}{i}"
                floors[i].append(bend)
                bent[before].add(bend)
                bent[bend] = set()
                before = bend
            bent[before].add(end)
    return floors, bent


def picture(names: dict[str, list[str]], graph: Graph, climbs: set[tuple[str, str]]) -> str:
    """Draw the rooms, floor by floor, as SVG."""
    falls = {name: {to for to in inner if (name, to) not in climbs} for name, inner in graph.items()}
    floors, arrows = with_bends(floors_of(falls), reduced(falls))
    floors = in_order(floors, arrows)
    lists = {name: [] if name == FACE else lines_of(files) for name, files in names.items()}
    widths = {
        name: max(LETTER * len(name), SMALL_LETTER * max(map(len, lists[name]), default=0)) + 24 for name in names
    }
    boxes: dict[str, tuple[float, float, float, float]] = {}
    top = 12.0
    for floor in reversed(floors):
        heights = {name: LINE * (1 + len(lists[name])) + 14 if name in names else 0.0 for name in floor}
        tallest = max(heights.values())
        taken = sum(widths.get(name, 0.0) for name in floor)
        gap = max(BETWEEN_ROOMS, (WIDTH - taken) / (len(floor) + 1))
        left = (WIDTH - taken - gap * (len(floor) - 1)) / 2
        for name in floor:
            boxes[name] = (left, top, widths.get(name, 0.0), heights[name] or tallest)
            left += widths.get(name, 0.0) + gap
        top += tallest + BETWEEN_FLOORS
    total = top - BETWEEN_FLOORS + 12

    parts = [SVG.format(width=WIDTH, height=round(total))]
    drawn = [(a, b, False) for a in arrows for b in sorted(arrows[a])] + [(a, b, True) for a, b in sorted(climbs)]
    for start, end, climbs_up in drawn:
        x1, y1, w1, h1 = boxes[start]
        x2, y2, w2, h2 = boxes[end]
        ends = sorted(arrows[start], key=lambda name: boxes[name][0])
        starts = sorted((name for name in arrows if end in arrows[name]), key=lambda name: boxes[name][0])
        x1 += w1 * (0.5 if climbs_up else (ends.index(end) + 1) / (len(ends) + 1))
        x2 += w2 * (0.5 if climbs_up else (starts.index(start) + 1) / (len(starts) + 1))
        y1, y2 = (y1, y2 + h2) if climbs_up else (y1 + h1, y2)
        bend = (y2 - y1) / 2
        through = "" if end in names else f" V{y2 + h2:.0f}"
        tip = ' marker-end="url(#tip)"' if end in names else ""
        parts.append(
            f'<path d="M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}'
            f'{through}" '
            f'fill="none" stroke="{"#c22" if climbs_up else "#667"}" stroke-width="1.3"{tip}/>'
        )
    for name in names:
        x, y, w, h = boxes[name]
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="5" '
            f'fill="{"#eef3fb" if lists[name] else "#f7f4ec"}" stroke="#445"/>'
        )
        for i, line in enumerate([name, *lists[name]]):
            style = 'font-size="12" fill="#445"' if i else 'fill="#112" font-weight="bold"'
            parts.append(
                f'<text x="{x + w / 2:.0f}" y="{y + LINE * (i + 1):.0f}" text-anchor="middle" xml:space="preserve" '
                f"{style}>{escape(line)}</text>"
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    """Draw the picture, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the picture or page is old")
    check = parser.parse_args().check
    names = rooms(PACKAGE)
    graph, loaded = graphs_of(PACKAGE, names)
    climbs = climbs_of(graph, loaded)
    drawn = picture(names, graph, climbs)
    print(f"{len(names)} rooms, {sum(map(len, graph.values()))} arrows, {len(climbs)} that climb")
    for start, end in sorted(climbs):
        print(f"climbs: {start} imports {end}")
    if not check:
        PICTURE.write_text(drawn, encoding="utf-8")
        return 0
    wrong = []
    if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != drawn:
        wrong.append(f"{PICTURE.relative_to(DOCS.parent)} is old: python {Path(__file__).relative_to(DOCS.parent)}")
    rows = [line.split("|")[1].strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    described = set(itertools.chain.from_iterable(row.split("`")[1::2] for row in rows))
    wrong += [f"{PAGE.relative_to(DOCS.parent)}: no sentence for {name}" for name in names if name not in described]
    wrong += [f"{PAGE.relative_to(DOCS.parent)}: there is no room {name}" for name in described if name not in names]
    print("\n".join(wrong) or "the picture is current, and each room has its sentence")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
