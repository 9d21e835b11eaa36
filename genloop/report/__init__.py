"""The report: one self-contained HTML page, and tables, from one or several evaluate runs, or from a training."""

from genloop.report.page.write import write_report
from genloop.report.runs import check_runs
from genloop.report.training.write import write_page

__all__ = ["check_runs", "write_page", "write_report"]
