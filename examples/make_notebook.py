"""Makes tutorial.ipynb of tutorial.py: one cell a step, run in a folder that is removed, with what the cells showed.

`pip install nbclient ipykernel`, then `python make_notebook.py`, some minutes. A test holds that both files have the same steps.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def cells(script: str) -> list[tuple[str, str]]:
    """The script as a notebook's cells, pairs of a kind (markdown, code) and a source: what it is for, then each step."""
    head, *steps = re.split(r"^# %% ", script, flags=re.MULTILINE)
    title, _, text = head.strip().strip('"').partition("\n\n")
    found = [("markdown", f"# {title}\n\n{text.strip()}")]
    for step in steps:
        told, _, code = step.partition("\n")
        found += [("markdown", told), ("code", code.strip())]
    return found


def notebook(script: str, folder: Path) -> str:
    """The text of a script's notebook: its cells, run in the folder, and what they showed, with nothing of this machine."""
    import nbformat
    from nbclient import NotebookClient

    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    made = nbformat.v4.new_notebook(
        cells=[new[kind](source, id=f"cell-{k}") for k, (kind, source) in enumerate(cells(script))]
    )
    NotebookClient(made, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    for cell in made.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = re.sub(r"\x1b\[[0-9;]*m", "", output.text)  # colours, which not every viewer shows
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return str(nbformat.writes(made)) + "\n"


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(HERE.parent)
    with tempfile.TemporaryDirectory() as folder:
        made = notebook((HERE / "tutorial.py").read_text(encoding="utf-8"), Path(folder))
    (HERE / "tutorial.ipynb").write_text(made, encoding="utf-8")
