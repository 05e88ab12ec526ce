"""Statistics: intervals, paired tests, bootstrap, agreement and correction for judge error; numbers in, numbers out."""
