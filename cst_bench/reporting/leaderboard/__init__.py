"""Reports of several runs: one model of their content, laid out as Markdown, HTML, LaTeX, CSV and JSON."""
