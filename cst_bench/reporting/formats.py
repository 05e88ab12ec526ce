"""The formats of a report of several runs."""

FORMATS = {"md": "report.md", "html": "report.html", "latex": "report.tex", "csv": "report.csv", "json": "report.json"}
"""Format → file name."""
