"""All tensors of a site lie side by side, and the banks hold them where the layouts say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pimloom.mapping.fill import contents
from pimloom.mapping.site import Site
from pimloom.sim.functional import Memory
from pimloom.traces.layout import Place, Striped, Tiled
from pimloom.workloads import tensors
from tests import small

MACHINES = st.builds(
    small.machine,
    channels=st.sampled_from([1, 3]),
    bankgroups=st.sampled_from([1, 2]),
    banks=st.sampled_from([1, 2]),
    columns=st.sampled_from([2, 3, 8]),
)
MODELS = st.builds(
    small.model,
    layers=st.sampled_from([1, 2]),
    heads=st.sampled_from([1, 3]),
    d_head=st.sampled_from([1, 15, 16, 17, 31]),
    d_ff=st.sampled_from([1, 33, 64]),
    vocab=st.sampled_from([1, 17, 53]),
    positions=st.sampled_from([1, 33]),
    tied_head=st.booleans(),
)


def places(site: Site) -> dict[str, Place]:
    """Every stored element's place, by region and layer; a tied head is there once."""
    found = {}
    for name, region in site.regions.items():
        layout = region.layout
        if name == "head.weight" and region is site.regions.get("wte"):
            continue
        if isinstance(layout, Striped):
            place = layout.place(np.arange(layout.length))
        else:
            index = (np.arange(n) for n in (layout.outputs, layout.segments, layout.length))
            place = layout.place(*np.meshgrid(*index, indexing="ij"))
        for layer in range(site.model.layers if region.base_row < site.layer_rows else 1):
            row = place.row + region.base_row + layer * site.layer_rows
            found[f"{name} {layer}"] = place._replace(row=row)
    return found


@given(arch=MACHINES, network=MODELS, batch=st.sampled_from([1, 2]))
def test_no_two_elements_share_a_cell(arch, network, batch: int) -> None:  # type: ignore[no-untyped-def]
    site = small.site(network, arch, [[0]] * batch)
    shape = (site.grid.channels, site.grid.banks, site.used_rows, site.grid.columns, site.grid.lanes)
    used = [np.ravel_multi_index(tuple(np.ravel(part) for part in p), shape) for p in places(site).values()]
    every = np.concatenate(used)
    assert len(np.unique(every)) == len(every)


@given(arch=MACHINES, network=MODELS)
def test_the_banks_hold_the_tensors(arch, network) -> None:  # type: ignore[no-untyped-def]
    site = small.site(network, arch, [[0]])
    weights = dict(tensors.random(network, 1))
    memory = Memory(arch, site.used_rows, "fp32")
    for place, values in contents(site, weights):
        memory.store(place, values)
    held = 0
    for name, place in places(site).items():
        region, layer = name.split()
        layout = site.regions[region].layout
        stored = memory.load(place)
        if isinstance(layout, Tiled) and region[0] not in "KV":
            full = f"layer{layer}.{region}" if f"layer{layer}.{region}" in weights else region
            np.testing.assert_array_equal(stored[:, 0], weights[full])
            held += stored.size
        elif isinstance(layout, Tiled):
            assert not stored.any()
        else:
            prefix = f"layer{layer}." if region.startswith("layer") else ""
            for vector, part in site.slices.items():
                if prefix + vector in weights:
                    np.testing.assert_array_equal(stored[part.start : part.stop], weights[prefix + vector])
                    held += part.stop - part.start
    assert held == network.parameters
    assert np.count_nonzero(memory.cells) <= held  # nothing else was written
