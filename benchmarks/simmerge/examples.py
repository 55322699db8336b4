"""Write the table's two-way merges as a file that ``mergefront select --train`` reads.

``python benchmarks/simmerge/examples.py --table benchmarks/simmerge/data --out FILE``
"""

import argparse
from pathlib import Path

from table import Table

from mergefront.samplers.simmerge import write_examples


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table = Table(arguments.table)
    write_examples(table.examples(table.pairs), arguments.out)


if __name__ == "__main__":
    main()
