"""Compare two runs, paired, with gates for CI."""
