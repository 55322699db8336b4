"""Print the dependencies of a pyproject.toml with some of its extras, one a line.

The image installs them in a layer of their own. Usage: requirements.py PYPROJECT EXTRA,EXTRA...
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return requirements as pip reads them; extras of ours are followed."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    found = list(project["dependencies"])
    waiting = list(extras)
    while waiting:
        extra = waiting.pop()
        if extra not in optional:
            sys.exit(f"EXTRAS names {extra!r}; there are {', '.join(sorted(optional))}.")
        for line in optional[extra]:
            own = line.startswith(f"{project['name']}[")
            waiting += line.split("[")[1].split("]")[0].split(",") if own else []
            found += [] if own else [line]
    return found


if __name__ == "__main__":
    chosen = [extra for extra in sys.argv[2].split(",") if extra]
    sys.stdout.write("".join(f"{line}\n" for line in requirements(Path(sys.argv[1]), chosen)))
