"""lm-eval's own command line, with the model `cst-hf` registered and templates compiled once.

python -m cst_bench.capabilities.likelihoods run --model cst-hf --model_args pretrained=FOLDER --tasks arc_challenge
"""

from __future__ import annotations

from cst_bench.capabilities.likelihoods import compiled_templates


def main() -> None:
    """Runs it."""
    from lm_eval.__main__ import cli_evaluate

    with compiled_templates():
        cli_evaluate()


if __name__ == "__main__":
    main()
