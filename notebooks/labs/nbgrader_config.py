"""How nbgrader grades these labs. `python3 run.py course FOLDER` puts it into a course's folder.

Nothing that a student wrote runs in the kernel that grades: answers are written to files, which
`tracer.classroom` runs in processes of their own, and a student's own cells are left out.
"""

from nbgrader.api import Gradebook
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
)

LEFT_OUT = "skip-execution"
"""A cell with this tag is not run (nbclient). A student may have given it to any cell."""


class KeepAnswersOutOfTheKernel(NbGraderPreprocessor):
    """Runs the instructor's cells alone; an answer is written to the file that its id names."""

    def preprocess(self, nb, resources):
        names = resources["nbgrader"]
        with Gradebook(names["db_url"]) as gradebook:
            original = gradebook.find_notebook(names["notebook"], names["assignment"])
            sources = {cell.name: (cell.locked, cell.source) for cell in original.source_cells}
        for cell in nb.cells:
            cell.metadata.pop("tags", None)
            if cell.cell_type != "code":
                continue
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            locked, source = sources.get(grade_id, (False, None))
            if locked:
                cell.source = source
            elif source is not None and source.startswith("%%writefile"):
                magic = source.splitlines()[0]
                body = cell.source.partition("\n")[2]
                body = body if cell.source.startswith("%%writefile") else cell.source
                cell.source = f"{magic}\n{body}"
            else:
                cell.metadata["tags"] = [LEFT_OUT]
        return nb, resources


c = get_config()  # noqa: F821 - nbgrader runs this file with it
c.CourseDirectory.course_id = "netpoll"
c.CourseDirectory.include = ["*.ipynb", "*.jsonl", "timestamp.txt"]
c.ClearSolutions.code_stub = {"python": "# Write your code here.\nraise NotImplementedError"}
c.OverwriteCells.add_missing_cells = True
c.Execute.timeout = 120
c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    KeepAnswersOutOfTheKernel,
    CheckCellMetadata,
]
