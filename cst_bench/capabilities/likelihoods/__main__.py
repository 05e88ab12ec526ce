"""lm-eval's command line, with the model `cst-hf` registered and each template compiled once.

python -m cst_bench.capabilities.likelihoods run --model cst-hf --model_args pretrained=FOLDER --tasks arc_challenge
"""

from __future__ import annotations

from cst_bench.capabilities.likelihoods import compiled_templates


def main() -> None:
    """Run the command line."""
    from lm_eval.__main__ import cli_evaluate

    with compiled_templates():
        cli_evaluate()


if __name__ == "__main__":
    main()
