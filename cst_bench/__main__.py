"""`python -m cst_bench` is `cst-bench`."""

from cst_bench.cli import main

if __name__ == "__main__":
    main()
