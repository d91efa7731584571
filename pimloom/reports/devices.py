"""The pages of the shipped PIM devices: units, controller, commands with energies, rules, sources, drawn kernels."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from pimloom.arch.device import Device, load_device
from pimloom.arch.document import Document, shipped
from pimloom.arch.dram import Dram
from pimloom.arch.tree import Keys
from pimloom.reports.standards import Said, sections, source_of, table
from pimloom.reports.stream_diagram import Played, play, save_scene


def write_devices(folder: Path) -> list[Path]:
    """Write `devices/<name>.md` and its drawings below a folder, for every shipped device; return the paths.

    The bytes depend on the descriptions, lowerings and controllers alone.
    """
    below = folder / "devices"
    below.mkdir(parents=True, exist_ok=True)
    return [path for name in shipped("device") for path in write_device(*load_device(name), below / name)]


def write_device(device: Device, document: Document, stem: Path) -> list[Path]:
    """Write the page of a device to `<stem>.md` and its drawings to `<stem>-<scene>.svg`; return the paths."""
    scenes = play(device)
    drawings = [stem.with_name(f"{stem.name}-{played.scene.name}.svg") for played in scenes]
    for played, path in zip(scenes, drawings, strict=True):
        save_scene(played, path)
    text = device_page(device, document, scenes, [path.name for path in drawings])
    page = stem.with_name(f"{stem.name}.md")
    page.write_text(text, encoding="utf-8", newline="\n")
    return [page, *drawings]


def device_page(device: Device, document: Document, scenes: Sequence[Played], drawings: Sequence[str]) -> str:
    """Return the Markdown page of a device; drawings: file names, one for each scene."""
    said: Said = {path: (node.source, node.note) for path, node in document.root.walk() if node.source}
    of_dram: Said = {path[1:]: what for path, what in said.items() if path[0] == "dram"}
    dram = device.dram
    parts = [
        f"# {device.name}",
        f"{device.description}. Everything below comes from the description of that name and what it extends; "
        "[devices.md](../devices.md) says in words how it works.",
        "## Matrix-vector products",
        "What the first channel issues, from runs of the shipped kernels on one channel. A box is one command or "
        "several of a kind (×) that follow each other; *used* is the share of the multipliers' lanes that find an "
        "element of the matrix, all others multiply by zero. Data: elements of the input x and of the result y. "
        "The clock at which a box begins stands above it; widths are not to scale.",
    ]
    for played, name in zip(scenes, drawings, strict=True):
        scene = played.scene
        parts += [
            f"### {scene.title}",
            f"{scene.text} {played.cycles:,} clocks in all.",
            f"![{scene.title} on {device.name}]({name})",
        ]
    parts += [
        "## Processing units",
        table(("", "value", "source"), _values(device.unit, ("unit",), said)),
        "## Controller",
        table(("", "value", "source"), _values(device.controller, ("controller",), said)),
        "## Energy",
        table(("", "pJ", "source"), _energies(device, dram, said)),
        *sections(dram, of_dram),
        "## Sources",
        "\n".join(f"- `{key}`: {text}" for key, text in sorted(_sources(device, said).items())),
    ]
    return "\n\n".join(parts) + "\n"


def _values(part: BaseModel, path: Keys, said: Said) -> list[list[str]]:
    """Return rows of all values of a part of the description, those below it as `a.b`."""
    rows = []
    for name in type(part).model_fields:
        value, at = getattr(part, name), (*path, name)
        if isinstance(value, BaseModel):
            rows += [[f"{name}.{first}", *rest] for first, *rest in _values(value, at, said)]
        elif isinstance(value, list):
            rows.append([name, ", ".join(f"`{v}`" for v in value) or "none", source_of(said, at)])
        else:
            rows.append([name, "none" if value is None else f"{value}", source_of(said, at)])
    return rows


def _energies(device: Device, dram: Dram, said: Said) -> list[list[str]]:
    energy = device.energy
    rows = []
    for name in dram.commands:
        value = energy.command_pJ.get(name)
        source = source_of(said, ("energy", "command_pJ", name))
        rows.append([f"`{name}`", "not known" if value is None else f"{value:,.10g}", source])
    for name, watts in (("active_W", energy.active_W), ("idle_W", energy.idle_W)):
        label = "a clock with an open bank" if name == "active_W" else "a clock with no open bank"
        each = "not known" if watts is None else f"{watts * 1e12 / dram.clock_Hz:,.10g}"
        rows.append([label, each, source_of(said, ("energy", name))])
    return rows


def _sources(device: Device, said: Said) -> dict[str, str]:
    keys = {source for source, _ in said.values()}
    return {key: text for key, text in (device.dram.sources | device.sources).items() if key in keys}
