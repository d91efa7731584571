"""docs/validation.md: one page with a part for everything that is reproduced, each written by its own command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pimloom.arch.tree import InputError

TITLE = "# Published and measured figures beside ours"
PARTS = {
    "pim-gpt": "PIM-GPT, as published",
    "aim": "GDDR6-AiM, beside the AiM simulator that CENT uses",
    "cent": "CENT, end to end, as published",
    "attacc": "AttAcc, beside its simulator",
    "hbm-pim": "HBM-PIM, beside the measured points of Samsung's simulator",
}
"""Part -> its heading, in the order of the page."""


def replace_part(path: Path, part: str, lines: Sequence[str]) -> None:
    """Put lines into a part (a key of `PARTS`) of the page; other parts stay. Raises InputError."""
    try:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        texts = {
            name: match[1].strip("\n")
            for name in PARTS
            if (match := re.search(f"<!-- {name} -->\n(.*?)<!-- end of {name} -->", old, re.DOTALL))
        }
        texts[part] = "\n".join([f"## {PARTS[part]}", "", *lines])
        page = [TITLE]
        for name in PARTS:
            if name in texts:
                page += ["", f"<!-- {name} -->", texts[name], f"<!-- end of {name} -->"]
        path.write_text("\n".join(page) + "\n", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
