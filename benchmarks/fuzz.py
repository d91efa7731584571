"""Malformed configurations and traces by the thousand: what the command line says to each of them.

    python benchmarks/fuzz.py [10000] [--seed 1] [--first 0] [--show 123]

Every case is a valid input of `dram`, `check-trace`, `check` or `show` that was mutated, and is given by the seed and
its number alone. It must end within ten seconds with exit code 2 and a message that names the file or the option;
or with 0 (check-trace: 3, dram: 1 and one line, where a run can never end), if the mutation left something valid.
Cases run in a process of their own, which is started again after one that hangs or crashes. --show runs one case
and prints it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import io
import json
import os
import queue
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "tests" / "data" / "dram" / "check"
CASE_s, START_s = 10.0, 300.0
MEMORY_B = 6 << 30
STANDARDS = (
    "ddr4_2400",
    "ddr4_3200",
    "ddr5_4800",
    "gddr6_14000",
    "hbm2_2000",
    "hbm3_6400",
    "lpddr4_2400",
    "lpddr5_6400",
)
COUNTS = ("pseudochannels", "ranks", "stack_ids", "bankgroups", "banks_per_bankgroup")
COORDINATES = ("pseudochannel", "rank", "stack_id", "bankgroup", "bank", "row", "column")
TREE_LEVELS = ("channel", "pseudochannel", "rank", "stack_id", "bankgroup", "bank")


class Raw(str):
    """A piece of YAML that is written as it is."""

    __slots__ = ()


NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 7, 63, 64, 65, 1000, 1024, 2**16, 2**20, 2**30, 2**30 + 1, 2**31, 2**40, 2**53, 2**62,
    2**63, 2**64, 10**9, 10**18, 10**30, 0.5, 1.5, -0.0, 1e-300, Raw("1e9"), Raw("1e400"), Raw("-1e400"),
    Raw(".nan"), Raw("NaN"), Raw("0x10"), Raw("0o17"), Raw("007"), Raw("1_000"), Raw("9" * 399),
    Raw("9" * 5000),
)  # fmt: skip
ODD: tuple[Any, ...] = (
    *NUMBERS, None, True, False, "", " ", "x", "none", "nRC", "nRC * nRC", "max(",
    "(" * 140 + "1" + ")" * 140, "-" * 290 + "1", "1 // 0", "nBL if 1 else 2", "[/red]", "\u202e",
    "a" * 5000, "a\nb", "\\0", [], {}, [1], [[]], {"value": 1}, {"value": 1, "source": "x"},
    {"a": {"b": {}}}, Raw("*a"), Raw("&a 1"), Raw("!!python/object:os.system x"), Raw("[" * 60 + "]" * 60),
    Raw("\t1"), Raw("'"), Raw("{"), Raw("? x"), Raw("'\0'"), Raw("'\x07'"),
)  # fmt: skip
ADDRESSES = (
    "-1", "0x", "x", "1e3", "99999999999999999999", "0xffffffffffffffff", str(2**62), str(2**61), str(10**15),
    "1" * 500, "", "0x1G", "+1", "\u0663",
)  # fmt: skip


@dataclass
class Case:
    """words: of the command line; names: one of them must be in a complaint; must_fail: the input cannot be valid."""

    number: int
    words: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    must_fail: bool = False


@dataclass
class Outcome:
    """fault: what is wrong with how a case ended, or None; complaint: the kind of its message."""

    number: int
    code: int | None
    seconds: float
    complaint: str
    words: list[str]
    what: list[str]
    fault: str | None


# --- valid inputs ------------------------------------------------------------------------------------------


@dataclass
class Corpus:
    """Valid inputs, in a folder of which cases write into `folder`.

    trees: descriptions by the name of what they are; traces: commands as CSV text, by the name of their description
    """

    folder: Path
    texts: dict[str, bytes] = field(default_factory=dict)
    trees: dict[str, Any] = field(default_factory=dict)
    traces: dict[str, bytes] = field(default_factory=dict)


def requests(rng: random.Random, form: str = "reference", most: int = 20) -> list[str]:
    """A short valid trace, a line an entry."""
    lines = ["cycle,op,address"] if form == "reference" else []
    cycle = 0
    for _ in range(rng.randint(1, most)):
        cycle += rng.choice((0, 0, 1, 30, 2000))
        write, address = (
            rng.random() < 0.4,
            rng.choice((0, 64, rng.randrange(1 << 22), rng.randrange(1 << 28))),
        )
        lines.append(
            {
                "reference": f"{cycle},{'RW'[write]},{address:#x}",
                "dramsim3": f"{address:#x} {('READ', 'WRITE')[write]} {cycle}",
                "ramulator1": f"{address} {'RW'[write]}",
                "ramulator2": f"{('LD', 'ST')[write]} {address:#x}",
            }[form]
        )
    return lines


FORMS = ("reference", "dramsim3", "ramulator1", "ramulator2")


def make_corpus(folder: Path) -> Corpus:
    """Collect the valid inputs, and compile the kernels on the way."""
    import typer.main
    import yaml

    from pimloom.arch.dram import load_dram
    from pimloom.arch.memory import load_memory
    from pimloom.arch.tree import InputError
    from pimloom.configs import folder as shipped

    # Building the commands from their annotations takes more time than most cases do.
    typer.main.get_command = functools.cache(typer.main.get_command)
    corpus = Corpus(folder)
    for kind in ("dram", "memory"):
        corpus.texts |= {
            f"{kind}:{path.stem}": path.read_bytes() for path in sorted(shipped(kind).glob("*.yaml"))
        }
    for path in sorted(CONFIGS.glob("*/config.yaml")):
        corpus.texts[f"reference:{path.parent.name}"] = path.read_bytes()
        corpus.trees[f"reference:{path.parent.name}"] = yaml.safe_load(path.read_bytes())
    for name in STANDARDS:
        corpus.trees[f"dram:{name}"] = load_dram(name)[1].root.plain()
        for controller in ("ramulator2", "dramsim3"):
            with contextlib.suppress(InputError):
                corpus.trees[f"memory:{name}:{controller}"] = load_memory(name, (), controller)[
                    1
                ].root.plain()
    rng = random.Random(0)
    for name, tree in corpus.trees.items():
        config, trace, commands = folder / "c.yaml", folder / "r.txt", folder / "out.csv"
        config.write_text(dump(tree))
        trace.write_text("\n".join(requests(rng, most=60)) + "\n")
        code, _, err, _ = call(["dram", str(config), str(trace), "--commands", str(commands), "--wrap"])
        assert code == 0, f"{name}: {err}"
        corpus.traces[name] = commands.read_bytes()
    return corpus


def dump(tree: Any) -> str:
    """A tree as YAML, one key of the root a line; a key ends where its first NUL stands."""
    return "".join(f"{key.partition(chr(0))[0]}: {_flow(value)}\n" for key, value in tree.items())


def _flow(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(k).partition(chr(0))[0])}: {_flow(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)


# --- mutations of bytes ------------------------------------------------------------------------------------

BYTES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"#", b",", b":", b"-", b"*a", b"&a ", b"{",
    b"[" * 80, b"1e400", b"\xc3", b"\xed\xa0\x80", b"9" * 5000, b"\x1f\x8b", b"\xfe\xff", b"---\n",
    b"%YAML 9.9\n", b"!!x ", b"? ", b"| \n", b" " * 70000,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Damage some bytes."""
    kind = rng.choice(("flip", "flip", "cut", "drop", "insert", "insert", "double", "lines", "empty", "swap"))
    at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    end = min(end, at + rng.choice((1, 4, 40, 4000)))
    if kind == "flip" and data:
        at = min(at, len(data) - 1)
        bit = bytes([data[at] ^ 1 << rng.randrange(8)])
        return data[:at] + bit + data[at + 1 :], f"flip a bit of byte {at}"
    if kind == "cut":
        return data[:at], f"cut off at {at}"
    if kind == "drop":
        return data[:at] + data[end:], f"drop bytes {at} to {end}"
    if kind == "insert":
        piece = rng.choice(BYTES)
        return data[:at] + piece + data[at:], f"insert {piece[:20]!r} at {at}"
    if kind == "double":
        return data[:end] + data[at:], f"double bytes {at} to {end}"
    if kind == "lines":
        lines = data.split(b"\n")
        rng.shuffle(lines)
        return b"\n".join(lines), "shuffle the lines"
    if kind == "swap":
        return data[end:] + data[:at], f"swap the parts around {at}"
    whole = (b"", b"\n", b" ", b"\0" * 1000, b"\xff" * 1000, b"x" * 200_000, b"{}", b"[]", b"null")
    return rng.choice(whole), "replace all"


# --- mutations of trees ------------------------------------------------------------------------------------


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key, (*path, key)
        yield from _places(value, (*path, key))


def _pick(
    rng: random.Random, tree: Any, wanted: Callable[[Any], bool] = lambda _: True
) -> tuple[Any, Any, str]:
    """A place, with keys near the root as likely as all those below them together."""
    places = [p for p in _places(tree) if wanted(p[0][p[1]])]
    if not places:
        return {"x": 1}, "x", "nothing"
    top = rng.choice(sorted({str(p[2][0]) for p in places}))
    holder, key, path = rng.choice([p for p in places if str(p[2][0]) == top])
    return holder, key, ".".join(map(str, path))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def odd_value(rng: random.Random, tree: Any) -> str:
    holder, key, path = _pick(rng, tree)
    holder[key] = rng.choice(ODD)
    return f"{path} = {str(holder[key])[:40]!r}"


def odd_number(rng: random.Random, tree: Any) -> str:
    holder, key, path = _pick(rng, tree, _is_number)
    old = holder[key]
    holder[key] = rng.choice(
        (*NUMBERS, old + 1, old - 1, old * 2, old // 2, old * 1000, -old, str(old), float(old), [old])
    )
    return f"{path} = {str(holder[key])[:40]!r}"


def drop(rng: random.Random, tree: Any) -> str:
    holder, key, path = _pick(rng, tree)
    del holder[key]
    return f"drop {path}"


def rename(rng: random.Random, tree: Any) -> str:
    holder, key, path = _pick(rng, tree)
    if not isinstance(holder, dict):
        return "nothing"
    word = str(key)
    kin = (f"{word}x", word[1:], word.upper(), f"{word}.x", f"{word}\0 again")
    name = rng.choice((*kin, *kin, "value", "extends", "<<", "", "kind", "k" * 200))
    holder[name] = holder[key] if name.endswith("again") else holder.pop(key)
    return f"rename {path} to {name[:40]!r}"


def swap(rng: random.Random, tree: Any) -> str:
    (a, i, path), (b, j, other) = _pick(rng, tree), _pick(rng, tree)
    a[i], b[j] = json.loads(json.dumps(b[j])), json.loads(json.dumps(a[i]))
    return f"swap {path} and {other}"


def _dram(tree: Any) -> Any:
    return tree.get("dram", tree)


def _commands(tree: Any) -> dict[str, Any]:
    found = _dram(tree).get("commands")
    return found if isinstance(found, dict) else {}


def _rules(tree: Any) -> list[list[Any]]:
    found = tree.get("timing_constraints", _dram(tree).get("constraints"))
    rules = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []
    return [rule for rule in rules if isinstance(rule, list) and len(rule) >= 4]


def without_command(rng: random.Random, tree: Any) -> str:
    """Drop a command wherever it is named."""
    commands = _commands(tree)
    if not commands:
        return "nothing"
    name = rng.choice(list(commands))
    del commands[name]
    for rule in _rules(tree):
        for side in rule[1:3]:
            if isinstance(side, list) and name in side:
                side.remove(name)
    rules = _dram(tree).get("constraints")
    for key in [k for k, rule in rules.items() if [] in rule] if isinstance(rules, dict) else ():
        del rules[key]
    return f"no command {name}"


def other_command(rng: random.Random, tree: Any) -> str:
    """Change what a command is, or in which order they stand."""
    commands = _commands(tree)
    if not commands or "simulator" in tree:
        return "nothing"
    if rng.random() < 0.2:
        items = list(commands.items())
        rng.shuffle(items)
        _dram(tree)["commands"] = dict(items)
        return "shuffle the commands"
    name = rng.choice(list(commands))
    key, values = rng.choice(
        (
            ("target", TREE_LEVELS),
            ("bank", ("none", "begin", "open", "close")),
            ("needs", ("any", "open", "closed", "opening")),
            ("row", (True, False)),
            ("duration", ("0", "1", "nRC", "-1", "2 * 10", "nXYZ")),
            ("meaning", ("activate", "activate_first", "activate_second", "precharge", "read", "write", "sync_read",
                         "sync_write", "mac", "refresh", "write_buffer", "read_result")),
        )
    )  # fmt: skip
    if isinstance(commands[name], dict):
        if rng.random() < 0.3:
            commands["NEW"] = dict(commands[name])
            name = "NEW"
        commands[name][key] = rng.choice(values)
    return f"{name}.{key} changed"


def other_rule(rng: random.Random, tree: Any) -> str:
    """Change a timing rule, or drop most of them."""
    rules = _rules(tree)
    if not rules:
        return "nothing"
    if rng.random() < 0.15:
        found = tree.get("timing_constraints", _dram(tree).get("constraints"))
        for key in rng.sample(
            sorted(found) if isinstance(found, dict) else range(len(found)), len(found) // 2
        )[::-1]:
            if isinstance(found, dict):
                del found[key]
            else:
                found[key] = []
        return "half of the rules"
    rule = rng.choice(rules)
    at = rng.randrange(5)
    if at == 0:
        rule[0] = rng.choice((*TREE_LEVELS, "Channel", "Rank", "Bank", "Sid", "row", 1))
    elif at in (1, 2):
        rule[at] = rng.choice(
            ([], ["NOP"], list(_commands(tree)), "ACT", [1], ["ACT", "ACT"], [["ACT"]], None)
        )
    elif at == 3:
        rule[3] = rng.choice(
            NUMBERS if "simulator" in tree else (*NUMBERS, "nRC", "nRC * 1000000", "max()", "min(1, 2)")
        )
    else:
        rule[4:] = [rng.choice((0, 1, 2, 5, 64, 65, -1, "siblings", "self", None))]
    return f"rule[{at}] changed"


def other_size(rng: random.Random, tree: Any) -> str:
    """Change the organisation so that it still adds up."""
    own = _dram(tree)
    form = tree.get("organisation", own)
    names = [*COUNTS, "rows", "bursts_per_row" if form is not own else "columns"]
    if not isinstance(form, dict):
        return "nothing"
    for _ in range(rng.choice((1, 1, 2))):
        form[rng.choice(names)] = rng.choice((1, 1, 2, 3, 4, 5, 8, 16, 64))
    sizes = [form.get(name, 1) for name in names]
    if not all(isinstance(size, int) and 0 < size < 2**40 for size in sizes):
        return "nothing"
    if form is own:
        access_B = form.get("access_B", 64)
        capacity_B = access_B if isinstance(access_B, int) else 64
        for size in sizes:
            capacity_B *= size
        form["channel_capacity_B"] = capacity_B
        if "address_mapping" in tree:
            tree["address_mapping"] = {"lsb_first": rng.sample(COORDINATES, len(COORDINATES))}
    elif isinstance(tree.get("address_mapping"), dict):
        parts = [[c, size.bit_length() - 1] for c, size in zip(COORDINATES, sizes, strict=True)]
        tree["address_mapping"]["lsb_first"] = [["byte_offset", 6], *rng.sample(parts, len(parts))]
    return f"sizes {sizes}"


def other_mapping(rng: random.Random, tree: Any) -> str:
    mapping = tree.get("address_mapping")
    parts = mapping.get("lsb_first") if isinstance(mapping, dict) else None
    if not isinstance(parts, list) or not parts:
        return "nothing"
    at = rng.randrange(len(parts))
    kind = rng.randrange(5)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.append(parts[at])
    elif kind == 2:
        parts[at] = [rng.choice((*COORDINATES, "channel", "x", 1)), rng.choice(NUMBERS)]
    elif kind == 3:
        rng.shuffle(parts)
    else:
        mapping["xor"] = [
            [rng.choice((*COORDINATES, "x")), rng.choice(COORDINATES)] for _ in range(rng.choice((1, 2, 20)))
        ]
    return f"mapping: {str(parts)[:60]}"


def other_controller(rng: random.Random, tree: Any) -> str:
    controller, refresh = tree.get("controller"), _dram(tree).get("refresh", tree.get("refresh"))
    if isinstance(refresh, dict) and rng.random() < 0.4:
        key = "mode" if "mode" in refresh else "policy"
        timing = tree.get("timing_cycles", _dram(tree).get("timing"))
        refresh[key] = rng.choice(("none", "all_bank", "per_bank", "per_bank_set", "x"))
        if isinstance(timing, dict):
            name = rng.choice(("nREFI", "nREFIpb", "nRFCpb", "nRFC"))
            timing[name] = rng.choice((0, 1, 2, 5, 40, 100, 1000, 2**20))
        return f"refresh {refresh[key]}"
    if not isinstance(controller, dict) or not controller:
        return "nothing"
    key = rng.choice(list(controller))
    words = ("open", "closed", "fr_fcfs", "fr_fcfs_row_hit", "round_robin", "FRFCFS_ROWHIT", "rank")
    choices = (*NUMBERS, *words, None, 0.0, 1.0)
    controller[key] = rng.choice(choices)
    if key.endswith("_queue") and rng.random() < 0.7:
        controller["read_queue"] = controller["write_queue"] = rng.choice((1, 2, 3, 1024))
    return f"controller.{key} = {controller[key]!r}"


TREE_MUTATIONS = (
    odd_value, odd_value, odd_number, odd_number, odd_number, drop, rename, swap, without_command,
    other_command, other_rule, other_size, other_mapping, other_controller,
)  # fmt: skip
MEMORY_MUTATIONS = (
    other_size, other_size, other_rule, other_controller, other_controller, without_command, other_command,
    other_mapping,
)  # fmt: skip


# --- cases -------------------------------------------------------------------------------------------------


def _write(case: Case, corpus: Corpus, name: str, data: bytes | str) -> str:
    path = corpus.folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    case.names.append(name)
    return str(path)


def _good_config(rng: random.Random) -> str:
    return rng.choice(
        (*STANDARDS, "ramulator2", "dramsim3", str(rng.choice(sorted(CONFIGS.glob("*/config.yaml")))))
    )


def _good_requests(case: Case, rng: random.Random, corpus: Corpus) -> str:
    form = rng.choice(FORMS)
    return _write(case, corpus, "r.txt", "\n".join(requests(rng, form)) + "\n")


def _outputs(case: Case, rng: random.Random, corpus: Corpus) -> list[str]:
    words = rng.choice(([], ["--json"], ["--wrap"], ["--wrap", "--json"], ["--wrap"]))
    if rng.random() < 0.3:
        words = [*words, "--commands", str(corpus.folder / f"out.{rng.choice(('csv', 'csv.gz', 'parquet'))}")]
    return list(words)


def _on_config(case: Case, rng: random.Random, corpus: Corpus, config: str, of: str) -> None:
    """Choose what to do with a configuration."""
    kind = rng.choice(("dram", "dram", "dram", "check", "show", "check-trace"))
    if kind == "dram":
        case.words = [kind, config, _good_requests(case, rng, corpus), *_outputs(case, rng, corpus)]
    elif kind == "check-trace" and of in corpus.traces:
        trace = _write(case, corpus, "t.csv", corpus.traces[of])
        case.words = [kind, config, trace, *rng.choice(([], ["--partial"], ["--json"]))]
    else:
        case.words = ["check" if kind == "check-trace" else kind, config]


def config_bytes(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Bytes of a configuration."""
    of = rng.choice(list(corpus.texts))
    data = corpus.texts[of]
    for _ in range(rng.choice((1, 1, 1, 3))):
        data, what = mutate_bytes(rng, data)
        case.what.append(what)
    _on_config(case, rng, corpus, _write(case, corpus, "c.yaml", data), of)
    case.names += [name.partition(":")[2] for name in corpus.texts]


def config_tree(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Keys and values of a configuration."""
    of = rng.choice(list(corpus.trees))
    tree = json.loads(json.dumps(corpus.trees[of]))
    case.what.append(of)
    for _ in range(rng.choice((1, 1, 2, 3))):
        case.what.append(rng.choice(TREE_MUTATIONS)(rng, tree))
    _on_config(case, rng, corpus, _write(case, corpus, "c.yaml", dump(tree)), of)


def other_memory(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """A memory that is unlike any real one, but may well be valid: what kernels have to cope with."""
    of = rng.choice([name for name in corpus.trees if not name.startswith("dram:")])
    tree = json.loads(json.dumps(corpus.trees[of]))
    case.what.append(of)
    for _ in range(rng.choice((1, 1, 2, 3))):
        case.what.append(rng.choice(MEMORY_MUTATIONS)(rng, tree))
    config = _write(case, corpus, "c.yaml", dump(tree))
    trace = _write(case, corpus, "r.txt", "\n".join(requests(rng, most=rng.choice((3, 40, 300)))) + "\n")
    case.words = ["dram", config, trace, "--wrap", "--json", "--commands", str(corpus.folder / "out.csv")]


def request_trace(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Bytes, lines or fields of a request trace."""
    lines = requests(rng, rng.choice(FORMS), 40)
    data = ("\n".join(lines) + "\n").encode()
    kind = rng.choice(("bytes", "bytes", "field", "field", "field", "line", "mixed", "gzip", "large"))
    if kind == "bytes":
        data, what = mutate_bytes(rng, data)
    elif kind in ("field", "line", "mixed"):
        at = rng.randrange(len(lines))
        separator = "," if "," in lines[at] else " "
        words = lines[at].split(separator)
        what = f"{kind} in line {at + 1}"
        if kind == "field":
            words[rng.randrange(len(words))] = rng.choice(
                (*ADDRESSES, "READ", "r", "W ", "LD", "\t", "#", "nan", "1.0", "10" * 8)
            )
        elif kind == "line":
            words = rng.choice(
                (words[1:], [*words, "1"], words[::-1], [separator, *words], ["#", *words], [""])
            )
        else:
            words = [rng.choice(requests(rng, rng.choice(FORMS)))]
        lines[at] = separator.join(words)
        data = ("\n".join(lines) + rng.choice(("\n", "", "\r\n", "\n\n\n"))).encode()
    elif kind == "gzip":
        data, what = mutate_bytes(rng, gzip.compress(data, mtime=0))
        what = f"gzip: {what}"
    else:
        what = "large"
        data += rng.choice((b"#" * 70_000, b"0" * 70_000, b"\n" * 2_000_000, b"0x0 R\n" * 50_000))
    case.what.append(what)
    config = _good_config(rng)
    trace = _write(case, corpus, "r.txt", data)
    case.words = ["dram", config, trace, *_outputs(case, rng, corpus)]


def command_trace(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Bytes, fields or the format of a command trace."""
    of = rng.choice(list(corpus.traces))
    data = corpus.traces[of]
    lines = data.decode().splitlines()
    kind = rng.choice(("bytes", "field", "field", "field", "line", "gzip", "parquet", "table", "format"))
    suffix = {"gzip": "csv.gz", "parquet": "parquet", "table": "parquet"}.get(kind, "csv")
    what = kind
    if kind == "bytes":
        data, what = mutate_bytes(rng, data)
    elif kind == "field":
        at = rng.randrange(len(lines))
        words = lines[at].split(",")
        i = rng.randrange(len(words))
        words[i] = rng.choice(
            (*ADDRESSES, "ACT", "NOP", "RD ", "-2", "1000000", str(10**18), str(10**18 - 1), words[i] + "0")
        )
        what = f"{words[i]!r} as field {i} of line {at + 1}"
        lines[at] = ",".join(words)
        data = ("\n".join(lines) + "\n").encode()
    elif kind == "line":
        rng.shuffle(lines)
        del lines[rng.randrange(len(lines))]
        data = "\n".join(lines).encode()
    elif kind == "gzip":
        data, what = mutate_bytes(rng, gzip.compress(data, mtime=0))
    elif kind == "parquet":
        data, what = mutate_bytes(rng, _parquet(data))
    elif kind == "table":
        data, what = _odd_table(rng, data)
    else:
        suffix = rng.choice(("parquet", "csv.gz", "txt", "csv.zip", "gz"))
    case.what += [of, f"{suffix}: {what}"]
    config = _write(case, corpus, "c.yaml", dump(corpus.trees[of]))
    trace = _write(case, corpus, f"t.{suffix}", data)
    case.words = ["check-trace", config, trace, *rng.choice(([], ["--partial"], ["--json"]))]


def _parquet(data: bytes) -> bytes:
    from pyarrow import BufferOutputStream, csv, parquet

    out = BufferOutputStream()
    parquet.write_table(csv.read_csv(io.BytesIO(data)), out)
    return bytes(out.getvalue())


def _odd_table(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """A sound Parquet file of a table that is no trace."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = csv.read_csv(io.BytesIO(data))
    n, at = len(table), rng.randrange(table.num_columns)
    columns = (
        pa.array([None] * n, pa.int64()), pa.array([2**64 - 1] * n, pa.uint64()), pa.array([-(2**63)] * n),
        pa.array([0.5] * n), pa.array([True] * n), pa.array([[1]] * n), pa.nulls(n),
        pa.array([0] * n, pa.timestamp("s")),
        pa.array(["ACT"] * n), pa.array(["ACT"] * n).dictionary_encode(), pa.array([1] * n).dictionary_encode(),
        pa.array([b"\xff\xfe"] * n, pa.binary()), pa.array([b"\xff\xfe"] * n, pa.binary()).view(pa.string()),
    )  # fmt: skip
    column = rng.choice(columns)
    name = table.column_names[at]
    kind = rng.choice(("column", "column", "column", "column", "rename", "drop", "double", "none"))
    if kind == "column":
        table = table.set_column(at, name, column)
    elif kind == "rename":
        table = table.rename_columns([f"{c}?" if c == name else c for c in table.column_names])
    elif kind == "drop":
        table = table.drop_columns([name])
    elif kind == "double":
        table = table.append_column(name, table.column(at))
    else:
        table = table.slice(0, 0)
    out = pa.BufferOutputStream()
    parquet.write_table(table, out)
    return bytes(out.getvalue()), f"table: {kind} {name} {column.type}"


OVERRIDES = (
    "dram.timing.nRP={}", "dram.refresh.policy={}", "controller.read_queue={}", "controller.write_high={}",
    "dram={}", "name={}", "controller.scheduler={}", "address_mapping.lsb_first={}",
    "address_mapping.lsb_first.0={}", "dram.constraints={}", "x={}", "dram.commands.ACT={}",
    "dram.commands.ACT.target={}", "{}=1", "{}", "dram.timing.{}=1", "dram.rows={}", "version={}", "={}",
    "dram.channels={}", "controller.tail={}", "dram.constraints.row_cycle={}",
    "address_mapping.lsb_first.99={}", "dram..rows={}", "address_mapping.xor={}", "kind={}", "extends={}",
    "dram.extends={}", "sources={}", "timing.nRP={}", "channels={}",
)  # fmt: skip


def overrides(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Values put over a description."""
    config = _good_config(rng)
    kind = rng.choice(("dram", "dram", "show", "check-trace"))
    if kind == "dram":
        case.words = [kind, config, _good_requests(case, rng, corpus), "--wrap"]
    elif kind == "show":
        case.words = [kind, config]
    else:
        case.words = [kind, config, _write(case, corpus, "t.csv", corpus.traces["dram:ddr4_2400"])]
    for _ in range(rng.choice((1, 1, 2))):
        text = rng.choice(OVERRIDES).format(_flow(rng.choice((*ODD, "none", "per_bank", "closed", ["row"]))))
        case.words += ["-o", text]
    case.names += ["-o", config, "pimloom/configs/"]


NOWHERE = ("./none.yaml", ".", "/", "../" * 3000, "ramulator2", "~", "a/" * 3000 + "b.yaml", "./far.yaml")
BAD_CONFIGS = (
    "{folder}/none.yaml", "{folder}", "{trace}", "{commands}", "{loop}", "{far}", "{bad}", "{bad}/x.yaml", "", "ddr4",
    "gpt2-smal", "\0", "./\0.yaml", "/dev/null", "/dev/zero",
)  # fmt: skip
BAD_REQUESTS = (
    "{folder}/none.txt",
    "{folder}",
    "{folder}/{bad}",
    "/dev/null",
    "/dev/zero",
    "",
    "\0",
    "{loop}",
)
BAD_COMMANDS = (
    "{folder}/none.csv", "{folder}", "{folder}/{bad}.csv", "{trace}", "/dev/null", "/dev/zero", "", "\0.csv", "{loop}",
)  # fmt: skip
BAD_OUTPUTS = (
    "{trace}/out.csv", "{folder}", "/proc/out.csv", "{folder}/out.txt", "{folder}/{bad}/{bad}/{bad}.csv" * 20, "",
    "\0.csv", "/dev/null", "{folder}/.csv/..",
)  # fmt: skip
BAD_OPTIONS = (
    ["--max-commands", "-1"], ["--max-commands", "x"], ["--max-commands", "1e3"], ["--max-commands", "9" * 5000],
    ["--nope"], ["--commands"], ["extra"], ["-o"], ["--controller", "ddr4_2400"], ["--json=1"],
)  # fmt: skip


def places(case: Case, rng: random.Random, corpus: Corpus) -> None:
    """Files that are not there, or are something else; options out of range."""
    folder, bad = corpus.folder, "x" * rng.choice((1, 300, 5000))
    trace = _write(case, corpus, "r.txt", "\n".join(requests(rng)) + "\n")
    commands = _write(case, corpus, "t.csv", corpus.traces["dram:ddr4_2400"])
    loop = _write(case, corpus, "loop.yaml", "extends: ./loop2.yaml\nkind: dram\n")
    _write(case, corpus, "loop2.yaml", "extends: ./loop.yaml\nkind: dram\n")
    far = _write(case, corpus, "far.yaml", f"extends: {rng.choice(NOWHERE)}\nkind: dram\n")

    def pick(texts: Sequence[str]) -> str:
        return rng.choice(texts).format(
            folder=folder, bad=bad, trace=trace, commands=commands, loop=loop, far=far
        )

    config = pick(BAD_CONFIGS)
    small = ["dram", "ddr4_2400"]
    case.must_fail = True
    case.words = rng.choice(
        (
            ["dram", config, trace],
            ["check", config],
            ["show", config],
            ["check-trace", config, commands],
            [*small, pick(BAD_REQUESTS)],
            ["check-trace", "ddr4_2400", pick(BAD_COMMANDS)],
            [*small, trace, "--commands", pick(BAD_OUTPUTS)],
            [*small, trace, "--controller", config],
            [*small, trace, *rng.choice(BAD_OPTIONS)],
            rng.choice((["dram"], ["check"], ["check-trace", "ddr4_2400"], small)),
        )
    )
    named = [Path(word).name or "." for word in case.words[1:]]
    case.names += [*named, *(repr(name)[1:-1] for name in named), str(folder), "Usage: pimloom", "Option '"]


KINDS = (
    config_tree, config_tree, config_tree, config_bytes, other_memory, other_memory, request_trace,
    request_trace, command_trace, overrides, places,
)  # fmt: skip


def make_case(seed: int, number: int, corpus: Corpus) -> Case:
    """Write the files of a case."""
    rng = random.Random(f"{seed}:{number}")
    case = Case(number)
    kind = rng.choice(KINDS)
    case.what.append(kind.__name__)
    kind(case, rng, corpus)
    return case


# --- judging -----------------------------------------------------------------------------------------------


class HangError(Exception):
    """A case that takes too long."""


def call(words: list[str]) -> tuple[int | None, str, str, str | None]:
    """Exit code, stdout, stderr and, if there was one, the exception of a command line."""
    from pimloom.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2)]
    code: int | None = None
    raised = None
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            main([*words, "--debug"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else None
        except BaseException:
            raised = traceback.format_exc()
    texts = []
    for stream in streams:
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    return code, texts[0], texts[1], raised


def judge(case: Case, code: int | None, out: str, err: str, raised: str | None) -> str | None:
    """What is wrong with the end of a case, or None."""
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("compiling kernels"))
    if raised is not None:
        return f"raised:\n{raised}"
    if code in (0, 3):
        if case.must_fail or (code == 3 and case.words[0] != "check-trace"):
            return f"exit code {code}"
        if err:
            return f"exit code {code}, but it says: {err[:1000]}"
        if "--json" in case.words:
            json.loads(out, parse_constant=_refuse)
        return None
    if (
        code == 1
        and case.words[0] == "dram"
        and err.count("\n") == 1
        and ": at clock " in err
        and not case.must_fail
    ):
        return None
    if code != 2:
        return f"exit code {code}: {err[:1000]}"
    if not err.strip() or "Traceback" in err:
        return f"no clear message: {err[:1000]!r}"
    if not any(name in err for name in case.names):
        return f"the message names neither file nor option: {err[:1000]}"
    longest = max(map(len, err.splitlines()))
    # What is long in these cases is the word of the command line that is wrong.
    if longest > 1000 and case.what[0] not in (places.__name__, overrides.__name__):
        return f"a message of {longest} characters: {err[:1000]}"
    return None


def _refuse(text: str) -> float:
    """Refuse NaN and infinity, which are no JSON."""
    raise ValueError(f"{text} in the JSON")


def kind_of(code: int | None, err: str) -> str:
    """The kind of a complaint: its first line without names, places and numbers."""
    lines = err.strip().splitlines()
    if code in (0, 3) or not lines:
        return ""
    line = lines[-1] if lines[0].startswith("Usage") else lines[0]
    line = re.sub(r"^.*?:\d+:\d+: |^-o .*?:\d+:\d+: |^\S*/\S*: ", "", line)
    line = re.sub(r"^(\w+\.)*\w+: ", "", line)
    line = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", line)
    return re.sub(r"-?\d[\d.,e+]*", "N", line)[:70]


# --- processes ---------------------------------------------------------------------------------------------


def _call_twice(case: Case) -> tuple[int | None, str, str, str | None]:
    """Run a case; what it writes must be a trace that check-trace can read, whatever it thinks of it."""
    ended = call(case.words)
    if ended[0] != 0 or case.words[0] != "dram" or "--commands" not in case.words or "-o" in case.words:
        return ended
    written = case.words[case.words.index("--commands") + 1]
    read = call(["check-trace", case.words[1], written, "--partial"])
    return (
        ended
        if read[0] in (0, 3) and not read[3]
        else (None, "", "", f"check-trace of what it wrote: {read}")
    )


def work(seed: int, first: int, stop: int) -> None:
    """Run cases one after the other; a line of JSON for each on stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_B, MEMORY_B))
    report = os.fdopen(os.dup(1), "w")

    def ring(*_: object) -> None:
        raise HangError(f"more than {CASE_s} s")

    signal.signal(signal.SIGALRM, ring)
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        os.chdir(name)
        corpus = make_corpus(Path(name))
        print("ready", file=report, flush=True)
        for number in range(first, stop):
            case = make_case(seed, number, corpus)
            print(json.dumps([case.words, case.what]), file=report, flush=True)
            begin = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, CASE_s)
            code, out, err, raised = _call_twice(case)
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds = time.perf_counter() - begin
            try:
                fault = judge(case, code, out, err, raised)
            except ValueError as error:
                fault = f"JSON: {error}"
            outcome = Outcome(number, code, seconds, kind_of(code, err), case.words, case.what, fault)
            print(json.dumps(vars(outcome)), file=report, flush=True)


def _listen(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def run(seed: int, first: int, stop: int) -> Iterator[Outcome]:
    """Run the cases from `first` to `stop` - 1 and yield how each ended."""
    while first < stop:
        command = [sys.executable, __file__, "--seed", str(seed), "--worker", str(first), str(stop)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_listen, args=(process, lines), daemon=True).start()
        case: tuple[list[str], list[str]] | None = None
        try:
            while first < stop:
                line = lines.get(timeout=START_s if case is None else 1.5 * CASE_s)
                if not line:
                    if case is None:
                        raise RuntimeError("the process that runs the cases does not start")
                    # Negative: the signal that ended it.
                    yield Outcome(first, None, 0, "", *case, f"crashed: process ended with {process.wait()}")
                    first += 1
                    break
                if line.startswith("["):
                    case = tuple(json.loads(line))
                elif line.startswith("{"):
                    yield Outcome(**json.loads(line))
                    first += 1
        except queue.Empty:
            assert case is not None
            yield Outcome(first, None, 1.5 * CASE_s, "", *case, f"hangs: more than {1.5 * CASE_s} s")
            first += 1
        finally:
            process.kill()
            process.wait()


def describe(seed: int, outcome: Outcome) -> str:
    """A case that went wrong, for whoever has to look at it."""
    return (
        f"case {outcome.number} of seed {seed} (python benchmarks/fuzz.py --seed {seed} --show {outcome.number})\n"
        f"  {'; '.join(outcome.what)}\n  pimloom {' '.join(map(repr, outcome.words))}\n  {outcome.fault}"
    )


def show(seed: int, number: int, folder: Path) -> None:
    """Run one case in this process, leave its files, and print all there is."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    case = make_case(seed, number, make_corpus(folder))
    print("; ".join(case.what), "\npimloom", *map(repr, case.words), flush=True)
    code, out, err, raised = _call_twice(case)
    print(f"exit code {code}\n--- stdout\n{out[:2000]}\n--- stderr\n{err[:4000]}\n{raised or ''}")
    print(f"--- {judge(case, code, out, err, raised) or 'right'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--show", type=int, metavar="CASE", help="run one case and leave its files in out/fuzz"
    )
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.seed, *given.worker)
        return
    if given.show is not None:
        show(given.seed, given.show, ROOT / "out" / "fuzz")
        return
    begin = time.perf_counter()
    codes: Counter[str] = Counter()
    complaints: Counter[str] = Counter()
    faults, slowest = 0, 0.0
    for outcome in run(given.seed, given.first, given.first + given.cases):
        codes[str(outcome.code)] += 1
        complaints[outcome.complaint] += outcome.code in (1, 2)
        slowest = max(slowest, outcome.seconds)
        if outcome.fault:
            faults += 1
            print(describe(given.seed, outcome), flush=True)
    seconds = time.perf_counter() - begin
    print(f"{given.cases} cases in {seconds:.0f} s, the slowest {slowest:.1f} s; {faults} went wrong")
    for code, count in sorted(codes.items()):
        print(f"  exit code {code}: {count}")
    for complaint, count in complaints.most_common():
        if count:
            print(f"{count:7} {complaint}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
