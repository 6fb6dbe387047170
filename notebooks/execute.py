"""Execute the notebooks beside this file and keep their outputs in them.

    python notebooks/execute.py [NAME ...]

They are executed in this folder, as an editor does it, and use the run in `../runs/seed0`, which they make if need be.
Bars are off, and nothing of the time or the machine is written, so that the same code gives the same files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
SECONDS = 1800  # of one cell: the first one may train a model, on a busy machine


def execute(notebook: NotebookNode, folder: Path = FOLDER, **settings: Any) -> NotebookNode:
    """Execute a notebook in place.

    Args:
        notebook: its outputs are replaced.
        folder: its working directory.
        settings: of the kernel's start.

    Raises:
        CellExecutionError: at the first cell that fails.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, "TQDM_DISABLE": "1"}, **settings)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this one
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            nbformat.write(execute(nbformat.read(path, as_version=4)), path)
