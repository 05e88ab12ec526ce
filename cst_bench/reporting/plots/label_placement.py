"""Where labels go so that none lies on another, on a marker or outside of the plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_ANGLES = 24
_DISTANCES = (1, 1.6, 2.4, 3.4, 4.6, 6, 8, 10, 13, 16, 20, 25, 31, 38)


class Box(NamedTuple):
    """A rectangle, in any unit of length."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, wide) * max(0.0, high)

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return the point of the box nearest to another point."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top)

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return which points are inside, shape (points, 2) → (points,)."""
        across, up = points[:, 0], points[:, 1]
        inside: np.ndarray = (across > self.left) & (across < self.right) & (up > self.bottom) & (up < self.top)
        return inside

    @property
    def area(self) -> float:
        """Return width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    taken: Iterable[Box],
    lines: np.ndarray,
    bounds: Box,
    gap: float,
) -> list[Box]:
    """Place a box for each label near its anchor; labels with the least room are placed first.

    Args:
        anchors: The point that each label names.
        sizes: Width and height of each.
        taken: What no label may lie on.
        lines: Points of lines, which labels should keep off, [points, 2].
        bounds: What labels may not leave.
        gap: From a point to the nearest label.

    Returns:
        In the order of the anchors. A label for which there is no room lies where it covers least.
    """
    fixed = list(taken)
    points = np.asarray(anchors, float).reshape(-1, 2)
    crowd = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=2) / (4 * gap)).sum(1)
    placed: dict[int, Box] = {}
    for at in sorted(range(len(anchors)), key=lambda at: (-round(float(crowd[at]), 6), at)):
        options = _options(anchors[at], sizes[at], gap)
        costs = [
            cost + _covered(box, fixed, bounds, gap) + _crossed(box, anchors[at], lines, placed.values())
            for box, cost in options
        ]
        box = placed[at] = options[int(np.argmin(np.round(costs, 6)))][0]
        fixed.append(box)
        lines = np.vstack([lines, _leader(box, anchors[at])])
    return [placed[at] for at in range(len(anchors))]


def _options(anchor: tuple[float, float], size: tuple[float, float], gap: float) -> list[tuple[Box, float]]:
    """Yield boxes around a point, each with the cost of its distance."""
    (x, y), (wide, high) = anchor, size
    boxes = []
    for distance in _DISTANCES:
        for turn in range(_ANGLES):
            angle = 2 * np.pi * turn / _ANGLES
            across, up = np.cos(angle), np.sin(angle)
            left = x + gap * distance * across - wide * (1 - across) / 2
            bottom = y + gap * distance * up - high * (1 - up) / 2
            # right and left of the point reads better than above and below it
            boxes.append((Box(left, bottom, left + wide, bottom + high), distance + 0.3 * abs(up)))
    return boxes


def _covered(box: Box, fixed: Sequence[Box], bounds: Box, gap: float) -> float:
    lost = sum(box.overlap(other) for other in fixed) + box.area - box.overlap(bounds)
    return 0.0 if lost < 1e-9 * box.area else 1000 + lost / gap**2


def _crossed(box: Box, anchor: tuple[float, float], lines: np.ndarray, labels: Iterable[Box]) -> float:
    """Return the cost of lines crossing a label, and of labels crossing the line from it to its point."""
    leader = _leader(box, anchor)
    return float(min(box.holds(lines).sum(), 40)) / 4 + 5 * sum(label.holds(leader).any() for label in labels)


def _leader(box: Box, anchor: tuple[float, float]) -> np.ndarray:
    return np.linspace(box.nearest(anchor), anchor, 8)
