"""Comparison of two float32 computations by their errors against a float64 one.

Two correct ways to compute a number differ by rounding, and rounding depends on the CPU: the order of a sum, fused
multiply-add, the width of a vector. A tolerance measured on one machine is not valid on another; the error of the stock
tool on the same machine is a measure of what rounding does there.
"""

from __future__ import annotations

import torch

FACTOR = 8
"""Most errors of the stock tool."""
FLOOR = 2e-6
"""Relative error that is always allowed, 16 times the spacing of float32: the stock tool may be right by chance."""


def assert_as_exact(
    ours: torch.Tensor, stock: torch.Tensor, exact: torch.Tensor, name: str = "", *, terms: torch.Tensor | None = None
) -> None:
    """Check that a result is about as close to the exact one as the stock tool's result.

    Args:
        ours: Result to check.
        stock: Result of the stock tool on the same inputs, in the same type.
        exact: Result of a float64 computation.
        name: What is compared, for the message.
        terms: Terms of the exact result, one of each element, where they are larger than it and cancel.
    """
    assert ours.shape == stock.shape == exact.shape, name
    assert ours.dtype == stock.dtype, name
    assert exact.dtype == torch.float64, name
    exact = exact.detach()
    size = float((exact if terms is None else terms.detach()).norm())
    our_error, stock_error = (float((result.detach().double() - exact).norm()) for result in (ours, stock))
    allowed = FACTOR * stock_error + FLOOR * size
    # not `our_error > allowed`: a NaN must fail
    assert our_error <= allowed, f"{name}: error {our_error:.2e} of {size:.2e}, stock {stock_error:.2e}"
