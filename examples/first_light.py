"""Two language models on the PIM-GPT accelerator: how fast, at how much power, and where the time goes.

Run it from anywhere: python examples/first_light.py [FOLDER FOR THE PICTURE]
"""

import sys
from pathlib import Path

from matplotlib import pyplot as plt

import pimloom as pl


def main(folder: Path, models: tuple[str, str] = ("gpt2-small", "gpt2-medium"), generate: int = 64) -> None:
    small, large = (pl.simulate(model, "pim-gpt", prompt=1, generate=generate) for model in models)

    for result in (small, large):
        print(f"{result.model.name}: {result.tokens_per_s:.4g} tokens/s at {result.average_power_W:.3g} W")
        # One row for every operator that ran: its class, on which unit, from when to when.
        ops = result.to_pandas()
        mean_ns = (ops.end_ns - ops.begin_ns).groupby(ops.op).mean()
        print(f"  slowest operator: {mean_ns.idxmax()}, {mean_ns.max():.0f} ns")
    parameters = large.model.parameters / small.model.parameters
    time = large.total_time_ns / small.total_time_ns
    print(f"{parameters:.2f} times the parameters take {time:.2f} times as long")

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    small.plot.latency_share(axes[0])
    large.plot.latency_share(axes[1])
    figure.savefig(folder / "latency_share.png", dpi=150)
    print(f"where the time goes: {folder / 'latency_share.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/first_light"))
