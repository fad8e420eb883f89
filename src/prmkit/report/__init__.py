"""What people look at: one HTML file that needs nothing else."""

from prmkit.errors import MissingDependency

try:
    import jinja2  # noqa: F401
except ImportError:
    raise MissingDependency("jinja2", "report", "writing a report") from None

from prmkit.report.evaluation import write_evaluation
from prmkit.report.page import Report, write_report

__all__ = ["Report", "write_evaluation", "write_report"]
