"""The identity of the package's own code: results and compiled kernels of other code are not these."""

from __future__ import annotations

import hashlib
from pathlib import Path


def source_hash() -> str:
    """Return 16 hex digits that change with any Python file of the package."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
