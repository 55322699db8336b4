"""One look for all tables on stdout."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

# Cells of one row; the last element says whether it is the chosen one.
Row = tuple[Sequence[str], bool]


def make_table(title: str | None, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    """Return a table with numbers at the right; the chosen rows are bold.

    Args:
        title: Above it.
        columns: Headings; one that begins with `<` is text, at the left, and one that begins with
            `~` is of less weight.
        rows: Cells, and whether the row is chosen.
    """
    # Brackets in names are no markup.
    shown = None if title is None else escape(title)
    table = Table(box=box.SIMPLE_HEAD, title=shown, title_justify="left")
    for column in columns:
        justify = "left" if column.startswith("<") else "right"
        style = "dim" if column.startswith("~") else ""
        head = escape(column.lstrip("<~"))
        table.add_column(head, justify=justify, style=style, no_wrap=True)  # type: ignore[arg-type]
    for cells, chosen in rows:
        table.add_row(*map(escape, cells), style="bold" if chosen else "")
    return table


def print_table(*candidates: Table) -> None:
    """Print the first of the tables that fits the terminal, or else the last one.

    What is no terminal takes lines of any length: the first.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(100, _width(candidates[0])))
    fitting = [table for table in candidates if _width(table) <= console.width]
    console.print((fitting or [candidates[-1]])[0])


def _width(table: Table) -> int:
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum
