"""Sweeps as YAML, shared by tests."""

from pathlib import Path

from pimloom.sweeps.description import Request, load_sweep

HEAD = "kind: sweep\nversion: 1\nname: s\nmodels: [gpt2-small]\narchs: [pim-gpt]\n"


def from_file(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> Request:
    """A sweep of GPT2-small on PIM-GPT that goes on with `text`."""
    path = folder / "s.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load_sweep(str(path), overrides)
