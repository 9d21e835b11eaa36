"""The report: one self-contained HTML page, and tables, from one or several evaluate runs."""

from genloop.report.page.write import write_report
from genloop.report.runs import check_runs

__all__ = ["check_runs", "write_report"]
