"""Draw one plate of a run from its saved tables, as PNG and PDF.

    python figures/draw.py erase_or_bypass runs/seed0
    python figures/draw.py relapse runs/seed0 --out elsewhere
    python figures/draw.py --list
    python figures/draw.py --gallery    the plates' part of figures/README.md

`mechinterp figures RUN` draws all that a run has tables for; what each plate shows: `figures/README.md`.
"""

import argparse
import sys
from pathlib import Path

from mechinterp.data.storage.places import check_free
from mechinterp.errors import InputError
from mechinterp.report.plates import PLATES, draw_figure, figure_files, read_tables, save_figure


def listed() -> str:
    """A line per plate: its name, title and tables."""
    width = max(map(len, PLATES))
    return "\n".join(
        f"{plate.name:{width}}  {plate.title} ({', '.join(f'{table}.csv' for table in plate.tables)})"
        for plate in PLATES.values()
    )


def gallery() -> str:
    """Every plate with its picture in `figures/gallery`, where there is one, and its caption, in Markdown."""
    parts = []
    for plate in PLATES.values():
        tables = ", ".join(f"`{table}.csv`" for table in plate.tables)
        drawn = (Path(__file__).with_name("gallery") / f"{plate.name}.png").is_file()
        picture = f"![{plate.alt}](gallery/{plate.name}.png)" if drawn else "*Not of the default run.*"
        parts.append(f"### {plate.title}\n\n{picture}\n\n{plate.caption}\n\n`{plate.name}`, from {tables}")
    return "\n\n".join(parts)


def main() -> None:
    """Draw the plate that the command line names, and print the paths written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="version", version=listed(), help="list the plates, and stop")
    parser.add_argument("--gallery", action="version", version=gallery(), help="the gallery in Markdown, and stop")
    parser.add_argument("name", choices=PLATES, metavar="NAME", help="of the plate, one of --list")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, with tables/*.csv")
    parser.add_argument("--out", type=Path, help="the folder to write to [RUN/figures]")
    arguments = parser.parse_args()
    folder = arguments.out or arguments.run / "figures"
    try:
        check_free(*figure_files(folder, arguments.name))
        paths = save_figure(draw_figure(arguments.name, read_tables(arguments.run)), folder, arguments.name)
    except InputError as error:
        parser.error(str(error))
    sys.stdout.writelines(f"{path}\n" for path in paths)


if __name__ == "__main__":
    main()
