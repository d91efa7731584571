"""CENT's end-to-end model against its published table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pimloom.arch.tree import InputError
from pimloom.reports.cent import System, load_cent, token

TABLE = Path(__file__).parents[1] / "data/pim/aim/published_end_to_end.csv"
ROWS = list(csv.DictReader(TABLE.open()))


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda r: f"{r['Model']}-{r['Tensor parallelism']}-{r['Sequence length']}"
)
def test_a_published_row_comes_out(row: dict[str, str]) -> None:
    shared = int(row["Tensor parallelism"])
    on = System(int(row["Device number"]), shared if shared > 1 else 0)
    found = token(load_cent(), row["Model"], int(row["Sequence length"]), on)
    expected = {
        "Pipeline parallelism": found.pipeline,
        "Channels per block": found.channels_per_block,
        "PIM latency": found.block_ms,
        "CXL latency": found.link_ms,
        "Acc latency": found.accelerator_ms,
        "Embedding latency": found.embedding_ms,
        "Token latency (ms)": found.latency_ms,
        "Throughput (tokens/s)": found.throughput_tokens_per_s,
        "Token energy (mJ)": found.energy_mJ,
        "Total power (W)": found.power_W,
        "Device utilization": found.device_utilization,
    }
    assert expected == {name: pytest.approx(float(row[name]), rel=1e-9) for name in expected}


def test_what_cannot_be_is_refused() -> None:
    cent = load_cent()
    with pytest.raises(InputError, match="did you mean 'Llama2-7B'"):
        token(cent, "Llama2-7", 1, System(8))
    with pytest.raises(InputError, match="groups of 3"):
        token(cent, "Llama2-7B", 1, System(8, 3))
    with pytest.raises(InputError, match="too few"):
        token(cent, "Llama2-70B", 1, System(1))
