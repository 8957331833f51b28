"""Our own wheel, made again from what is installed, so that it can ride along in every artifact.

It works from an editable checkout as from site-packages, needs no build tools and no network, and gives the same bytes
for the same code on the same platform: an artifact's digests say which code scored. The module in C that walks trees
rides along as it was built here, as data of a wheel for every platform: where it cannot be imported, NumPy computes the
same bits.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "fin_pyfunc"
PACKAGES = ("fin_pyfunc", "fin_pyfunc_cli")
#: What was compiled here and rides along: for the stable ABI, so that any Python of this platform can import it.
COMPILED = ("_trees.abi3.so", "_trees.pyd")
#: Zip cannot hold an earlier time; a fixed one keeps the bytes the same from build to build.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def name(version: str) -> str:
    """File name of the wheel (binary distribution format, PEP 427)."""
    # a build number: of two wheels of one version, pip and uv take the one that has it, so never an index's
    return f"{DISTRIBUTION}-{version}-1-py3-none-any.whl"


def build(folder: Path) -> Path:
    """Write the wheel of the running fin_pyfunc.

    Parameters
    ----------
    folder : Path
        Where to.

    Returns
    -------
    Path
        The wheel, such as ``fin_pyfunc-0.1.0-1-py3-none-any.whl``.
    """
    installed = distribution(DISTRIBUTION)
    info = f"{DISTRIBUTION}-{installed.version}.dist-info"
    path = folder / name(installed.version)
    files = {arcname: file.read_bytes() for package in PACKAGES for arcname, file in _package_files(package)}
    files[f"{info}/METADATA"] = (installed.read_text("METADATA") or installed.read_text("PKG-INFO") or "").encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: fin_pyfunc\nRoot-Is-Purelib: true\nTag: py3-none-any\nBuild: 1\n"
    )
    files[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    for license_file in installed.metadata.get_all("License-File") or ():
        # where core metadata 2.4 (PEP 639) puts it, where older setuptools does, and where it is in a checkout
        inside = (installed.read_text(name) for name in (f"licenses/{license_file}", license_file))
        source = Path(str(installed.locate_file(license_file)))
        text = next(filter(None, inside), None) or (source.read_text("utf-8") if source.is_file() else "")
        files[f"{info}/licenses/{license_file}"] = text.encode()
    record = "".join(f"{arcname},sha256={_digest(content)},{len(content)}\n" for arcname, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for arcname, content in files.items():
            archive.writestr(zipfile.ZipInfo(arcname, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return path


def _package_files(package: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        root = Path(location)
        for file in sorted(root.rglob("*")):
            # not what images are built from, and of what was compiled for this machine the walk of trees alone
            is_ours = file.suffix in (".py", ".c") or file.name == "py.typed" or file.name in COMPILED
            if file.is_file() and is_ours:
                yield f"{package}/{file.relative_to(root).as_posix()}", file


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
