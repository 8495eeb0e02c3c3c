"""Look for files that import each other in a circle, and for files that import one another for types only.

The import contracts compare packages and files with their siblings; this also sees a file that imports from the
``__init__`` of its own package. Imports under ``if TYPE_CHECKING`` and inside functions count.
"""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

import grimp


def edges(*, types: bool) -> dict[str, set[str]]:
    """Every file of the package with the files that it imports."""
    graph = grimp.build_graph("mlmed", exclude_type_checking_imports=not types, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def main() -> int:
    every, at_run_time = edges(types=True), edges(types=False)
    found = [f"{name} imports {other} for types only" for name in every for other in every[name] - at_run_time[name]]
    try:
        TopologicalSorter(every).prepare()
    except CycleError as error:
        found.append(f"a circle: {' <- '.join(error.args[1])}")
    sys.stdout.write("\n".join(sorted(found) or [f"{len(every)} files, no circle"]) + "\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
