"""Sign the receipt of a run with an SSH key, and check signatures, by OpenSSH's `ssh-keygen -Y`.

The signature is `receipt.json.sig`, in OpenSSH's own format and with the namespace `cst-bench`, so that OpenSSH alone
can check it: `ssh-keygen -Y verify -n cst-bench -f ALLOWED_SIGNERS -I WHO -s receipt.json.sig < receipt.json`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.escape import visible
from cst_bench.files import write_bytes
from cst_bench.record import Receipt, hash_file

SIGNATURE = f"{Receipt.FILE_NAME}.sig"
NAMESPACE = "cst-bench"


@dataclass(frozen=True)
class Signature:
    """A receipt's signature."""

    by: str
    """Who signed: the principal of the allowed signers; the key's fingerprint if those were not given."""
    allowed: bool
    """Whether that is an allowed signer; False if those were not given."""


def sign(folder: Path, key: Path) -> Path:
    """Sign the receipt of a run and return the signature's path. A passphrase is asked for on the terminal.

    Args:
        folder: The run folder.
        key: Private key, or a public one whose private key an agent has.

    Raises:
        UserError: there is no `ssh-keygen`, or it does not sign with this key.
    """
    done = _ssh_keygen(["-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE], _read(folder, Receipt.FILE_NAME))
    if done.returncode != 0 or not done.stdout:
        raise UserError(f"{key}: ssh-keygen could not sign {folder / Receipt.FILE_NAME} with this key: {_said(done)}")
    write_bytes(folder / SIGNATURE, done.stdout)
    return folder / SIGNATURE


def check_signature(folder: Path, allowed_signers: Path | None = None) -> Signature | None:
    """Check the signature of a run's receipt and return it; None without one.

    Args:
        folder: The run folder.
        allowed_signers: OpenSSH's file of who may sign (`man ssh-keygen`, "ALLOWED SIGNERS"); if None, any key may.

    Raises:
        UserError: the signature is damaged, is of another receipt or by none of the allowed signers, or there is no
            `ssh-keygen`.
    """
    path = folder / SIGNATURE
    if not path.exists() and not path.is_symlink():
        return None
    _read(folder, SIGNATURE)
    receipt = _read(folder, Receipt.FILE_NAME)
    advice = "restore it, or sign again with `cst-bench verify --sign`"
    if allowed_signers is None:
        done = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path)], receipt)
        key = re.search(rb"SHA256:[A-Za-z0-9+/=]+", done.stdout)
        if done.returncode != 0 or key is None:
            raise UserError(f"{path} is no signature of this receipt ({_said(done)}): {advice}")
        return Signature(key[0].decode(), False)
    found = _ssh_keygen(["-Y", "find-principals", "-s", str(path), "-f", str(allowed_signers)], b"")
    principals = found.stdout.decode("utf-8", "replace").splitlines()
    if found.returncode != 0 or not principals:
        raise UserError(
            f"{path} is by nobody in {allowed_signers} ({_said(found)}): add the signer's key there if you trust it"
        )
    who = principals[0]
    done = _ssh_keygen(
        ["-Y", "verify", "-f", str(allowed_signers), "-I", who, "-n", NAMESPACE, "-s", str(path)], receipt
    )
    if done.returncode != 0:
        raise UserError(f"{path} is no valid signature of this receipt by {_shown(who)} ({_said(done)}): {advice}")
    return Signature(_shown(who), True)


def _read(folder: Path, name: str) -> bytes:
    problem = hash_file(folder, name)
    if isinstance(problem, str):
        raise UserError(f"{folder / name} {problem}: restore it")
    return (folder / name).read_bytes()


def _ssh_keygen(arguments: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UserError("signatures need ssh-keygen, which is not installed: install OpenSSH 8.2 or newer")
    return subprocess.run([program, *arguments], input=data, capture_output=True, check=False)  # noqa: S603  (ssh-keygen, no shell)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the first line of what a program said."""
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return _shown(lines[0]) if lines else f"exit status {done.returncode}"


def _shown(text: str) -> str:
    """Return the output of a program without control characters."""
    return "".join(map(visible, text))
