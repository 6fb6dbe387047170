"""Execute the notebooks beside this file and keep their outputs in them.

    python notebooks/execute.py

Runs lie in `runs` at the root of the repository, or in the folder that MECHINTERP_RUNS names; the study's config is the
default one, or the file that MECHINTERP_CONFIG names. Nothing of the time or the machine is written, so that the same
code gives the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
SECONDS = 1800  # of one cell: the first one may train a model, on a busy machine


def execute(notebook: NotebookNode, **settings: Any) -> NotebookNode:
    """Execute a notebook in place, with the notebooks' folder as working directory.

    Raises:
        CellExecutionError: at the first cell that fails.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(**settings)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this one
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(nbformat.read(path, as_version=4)), path)
