"""The cases of the DRAM reference data that are kept here: configuration, requests, summary of the whole run."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "data" / "dram" / "reference"
CASES = sorted(path.parent for path in ROOT.rglob("config.yaml"))
NAMES = ["/".join(case.parts[-3:]) for case in CASES]


def summary(case: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((case / "summary.json").read_text())
    return found


def case(part: str) -> Path:
    """The only case whose name has this part."""
    (found,) = (case for case in CASES if part in "/".join(case.parts[-3:]))
    return found
