"""Keep keys out of what is shown: those of the environment, and users and passwords in addresses."""

from __future__ import annotations

import os
import re

REMOVED = "[removed]"
"""Stands for a secret."""
SHORTEST_SECRET = 6
"""Shorter values are no secrets, and may be anywhere."""
_NAMES_A_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^\s/?#]{1,1000}@")
"""User and password of an address, up to its last @."""


def redact(text: str) -> str:
    """Return a text without the values of environment variables that are named as a secret is, and without logins."""
    values = {
        value
        for name, value in os.environ.items()
        if _NAMES_A_SECRET.search(name) and len(value) >= SHORTEST_SECRET and not os.path.exists(value)
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, REMOVED)
    return _LOGIN.sub(f"{REMOVED}@", text)
