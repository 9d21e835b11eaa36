"""The report: one self-contained HTML page, and tables, of evaluate runs, of a training, or of a run of generate."""

from genloop.report.page.write import write_report
from genloop.report.pages import default_folder, write_page
from genloop.report.runs import check_runs

__all__ = ["check_runs", "default_folder", "write_page", "write_report"]
