"""The shipped descriptions: YAML files with a source for every number, and where they lie."""

from pathlib import Path

FOLDERS = {
    "dram": "dram",
    "memory": "memories",
    "arch": "archs",
    "system": "archs",
    "device": "devices",
    "host": "hosts",
    "gpu": "hosts",
    "model": "models",
    "sweep": "sweeps",
    "measured": "baselines",
    "processors": "baselines",
    "cent": "baselines",
    "published": "baselines",
}


def folder(kind: str) -> Path:
    """Directory of the shipped descriptions of one kind (a key of `FOLDERS`)."""
    return Path(__file__).parent / FOLDERS[kind]
