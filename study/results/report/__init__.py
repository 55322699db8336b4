"""Pictures and pages of a study: the report's HTML and optuna-dashboard.

`write_report` writes a folder with a page and its pictures; `serve` runs the dashboard.
`figures` draws with matplotlib, `plotly_figures` the same for the dashboard.
"""

from .page import write_report

__all__ = ["write_report"]
