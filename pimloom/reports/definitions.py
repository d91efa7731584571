"""The glossary: what every key of a run's summary means, and its unit."""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 1
"""Of the summary's layout."""
RESULT, CONFIG, MODEL = "result.json", "config.resolved.yaml", "model.resolved.yaml"
COUNTS, PROVENANCE = "counts.json", "provenance.json"
"""The files of a result's folder that every result has; the first is the summary."""


class Definition(NamedTuple):
    """What a key of the summary means; unit "" = a pure count, ratio or name."""

    unit: str
    text: str


COLUMNS = {
    "speedup_over.*": Definition(
        "",
        "table of a sweep: time of the same work on that processor over the time here; names that end in "
        "_roofline stand for data-sheet rooflines, others for measurements",
    ),
    "energy_saving_over.*": Definition(
        "", "table of a sweep: the same with energies; null = not known there"
    ),
    "grids": Definition("", "table of a sweep: the grids that the point belongs to, if there are several"),
    "error": Definition("", "table of a sweep: why the point has no results; null = it has"),
    "point": Definition(
        "", "table of a sweep: name of the point's folder, a hash of all that decides its results"
    ),
}
"""What the table of a sweep has beside what was swept and the keys of summaries."""


def definitions() -> dict[str, Definition]:
    """Return key (dotted; `*` = any) -> unit and meaning, for every figure of the summary."""
    return _table(_GLOSSARY)


def request_keys() -> dict[str, Definition]:
    """Return the same for the figures of `pimloom dram --json`, as keys below `dram`."""
    return _table(_REQUESTS)


def device_keys() -> dict[str, Definition]:
    """Return the same for runs on systems, as keys below `system`, and for `pimloom kernel --json`, below `kernel`.

    A block has the keys of both.
    """
    return _table(_SYSTEMS)


def _table(glossary: str) -> dict[str, Definition]:
    table: dict[str, Definition] = {}
    for line in glossary.strip().replace("\n    ", " ").splitlines():
        key, unit, text = line.split(" | ")
        table[key] = Definition("" if unit == "-" else unit, text)
    return table


# key | unit | meaning; an indented line goes on with the one before.
_GLOSSARY = """
schema_version | - | version of this layout; it grows when a key changes its meaning
model | - | name of the model
arch | - | name of the machine
workload.prompt | - | prompt tokens of every sequence
workload.generate | - | new tokens of every sequence
workload.batch | - | sequences side by side
workload.embedding | - | whether the look-up of the token and position tables is part of the run
workload.head | - | whether the LM head is part of the run
total_time_ns | ns | end of the last pass, from time 0; a pass is one token of every sequence
time_per_token_ns | ns | list, one entry a pass: from the end of the pass before to its own end
ttft_ns | ns | time to first token: end of the last prompt token's pass
tpot_ns | ns | time per output token: mean over the new tokens after the first; null if there is one
tokens_per_s | 1/s | new tokens of all sequences over the total time, prompt included
average_power_W | W | energy_pJ.total over the total time; whole system without what is left out
pim_utilisation | - | MAC commands x nMAC over channels x clocks: share of the MAC slots used
pim_utilisation_useful | - | multiplications that matrices and attention need over those possible in the
    total time; padding and unused lanes do not count
bandwidth_inside_Bps.achieved | B/s | bytes from all banks into the MAC units over the total time
bandwidth_inside_Bps.peak | B/s | the same with a MAC command every nMAC clocks
bandwidth_pins_Bps.achieved | B/s | bytes over the pins of all channels over the total time
bandwidth_pins_Bps.peak | B/s | pins x rate of all channels
energy_per_token_pJ | pJ | energy_pJ.total over the new tokens of all sequences
energy_pJ.* | pJ | whole system, by component; null = unknown or not modelled
energy_pJ.dram_activate | pJ | opening and closing rows, above standby
energy_pJ.dram_read | pJ | column reads to the pins, above standby, one column time (nCCD) each, without the pins
energy_pJ.dram_write | pJ | column writes, above standby, one column time (nCCD) each, without the pins
energy_pJ.dram_mac_read | pJ | column reads by the MAC units, above standby, one column time (nCCD) each
energy_pJ.dram_refresh | pJ | refreshes, above standby with all banks closed
energy_pJ.dram_standby | pJ | standby of all channels over the total time, refreshes included
energy_pJ.mac_units | pJ | MAC units while they work
energy_pJ.buffer | pJ | accesses to the channels' input buffers
energy_pJ.io | pJ | bits over the pins of the memory
energy_pJ.asic | pJ | the ASIC at work and idle
energy_pJ.link | pJ | the way between the ASIC and the pins; not modelled
energy_pJ.asic_sram | pJ | the ASIC's memory; not modelled
energy_pJ.total | pJ | sum of the components that are known
energy_by_operator_pJ.* | pJ | energy_pJ.total by operator class: the commands of its programs, and the ASIC
    while it works for it; standby, refreshes (with their precharges and re-openings) and the idle ASIC are
    dealt out by latency_share
energy_left_out | - | list of what energy_pJ.total does not hold
energy_rows.*.component | - | component of energy_pJ that the product belongs to
energy_rows.*.item | - | the event or state
energy_rows.*.system_count | count_unit | events, bits, or time in a state, whole system
energy_rows.*.count_unit | - | what is counted
energy_rows.*.coefficient | coefficient_unit | energy per event or bit, or power of the state
energy_rows.*.coefficient_unit | - | pJ, pJ/bit, or mW (mW x ns = pJ)
energy_rows.*.system_energy_pJ | pJ | system_count x coefficient
commands.* | - | commands issued by type, all channels; an all-bank command counts once
row_hit_rate | - | 1 - bank activations / bank column accesses; an all-bank command: once per bank
latency_share.* | - | share of the total time by operator class: by how much its tasks moved the end of
    the run; adds up to 1
command_time_share.* | - | share of all channels' clocks; adds up to 1
command_time_share.mac_streaming | - | MAC commands x nMAC
command_time_share.mac_stalls | - | waiting for a MAC command beyond that, mostly for its row to open
command_time_share.row_switching | - | waiting for activates and precharges, those of refreshes included
command_time_share.transfer_in | - | waiting for writes of the input buffer
command_time_share.transfer_out | - | waiting for reads of MAC results
command_time_share.cache_and_table_access | - | waiting for plain reads and writes: caches, tables, parameters
command_time_share.refresh | - | held up by refreshes, from the precharge before them to the end of nRFC; hidden
    ones do not count
command_time_share.data_tail | - | from a program's last command to the end of its data
command_time_share.waiting | - | no program: the ASIC, the link or another channel is at work
refresh_time_share | - | share of all channels' time in refresh: refreshes x nRFC, hidden or not
interface_bytes.bus_B.* | B | bytes over the pins, by command, by direction and in all; padding included
interface_bytes.bus_by_class_B.*.to_memory | B | the same by operator class
interface_bytes.bus_by_class_B.*.from_memory | B | the same by operator class
interface_bytes.payload_by_class_B.*.sent | B | values that are meant, to the memory, all copies
interface_bytes.payload_by_class_B.*.sent_once | B | the same with one copy of each value
interface_bytes.payload_by_class_B.*.received | B | values that are meant, from the memory
interface_bytes.reduction.decoder_payload.* | B | the layers' matrices and attention: payload in all
    copies, but one copy of the probabilities; the baseline reads every matrix once a pass and the
    caches of every sequence once a pass
interface_bytes.reduction.decoder_payload_with_parameters.* | B | the same and norm weights and biases,
    on both sides
interface_bytes.reduction.decoder_bus.* | B | the same baseline over the bytes on the bus for it, in all
    copies and with padding
interface_bytes.reduction.whole_bus.* | B | everything on the bus; the baseline gains the embedding
    look-ups and the LM head
interface_bytes.reduction.*.factor | - | baseline_B / ours_B
memory.rows_used | - | rows taken in every bank, caches at full length included
memory.rows_total | - | rows of a bank
memory.wasted_B | B | bytes of the rows taken that no tensor element has, all channels
simulator.engine | - | fast, events or naive
simulator.wall_s | s | time that the simulation took
simulator.commands_simulated | - | steps of the kernel: one command, or one run of equal commands at an even
    distance, for all channels that go alike
simulator.commands_skipped | - | commands issued less those steps: what runs, exact fast-forward over loops
    and channels that go alike save
simulator.host | - | name of the computer
simulator.python | - | version of Python
simulator.numba | - | version of Numba
simulator.version | - | version of pimloom
"""

_REQUESTS = """
dram.memory | - | name of the memory: DRAM, address mapping and controller
dram.dram | - | name of its DRAM
dram.scheduler | - | how the controller chooses: fr_fcfs, fr_fcfs_row_hit or round_robin
dram.page | - | open, or closed: every access closes its row
dram.channels_simulated | - | the requests are those of one channel, however many the DRAM has
dram.clock_Hz | Hz | clock that cycles are counted in; for HBM3 twice the command clock
dram.requests | - | requests of the trace
dram.access_B | B | bytes of one access, which every request is
dram.reads | - | of these, reads
dram.writes | - | of these, writes
dram.cycles | clocks | clocks simulated
dram.busy_cycles | clocks | clocks until the last request was done; round_robin goes on for its tail
dram.busy_time_ns | ns | the same
dram.commands.* | - | commands of this name issued in the whole run
dram.commands_total | - | commands issued in the whole run
dram.trace_crc32 | - | CRC-32 (zlib) of all rows of the command trace as CSV text, each with its line end, without
    the header; 8 hexadecimal digits
dram.bandwidth_GBps | GB/s | bytes of all requests over the busy time, 1e9 bytes a second; also of those
    that others answered
dram.bandwidth_pins_GBps | GB/s | bytes of all accesses, which go over the pins, over the busy time
dram.bandwidth_peak_GBps | GB/s | bytes over the channel's pins if they never rest
dram.bandwidth_share | - | bandwidth of the pins over their peak
dram.read_latency_sum_cycles | clocks | sum over all reads, from acceptance by the controller to the end of data
dram.read_latency_mean_cycles | clocks | mean over all reads; null = there were none
dram.read_latency_p50_cycles | clocks | the smallest latency that half of the reads do not exceed
dram.read_latency_p90_cycles | clocks | the same for 90 % of the reads
dram.read_latency_p99_cycles | clocks | the same for 99 % of the reads
dram.read_latency_p99_9_cycles | clocks | the same for 99.9 % of the reads
dram.read_latency_max_cycles | clocks | the longest
dram.read_latency_mean_ns | ns | as in clocks
dram.read_latency_p50_ns | ns | as in clocks
dram.read_latency_p90_ns | ns | as in clocks
dram.read_latency_p99_ns | ns | as in clocks
dram.read_latency_p99_9_ns | ns | as in clocks
dram.read_latency_max_ns | ns | as in clocks
dram.row_hits | - | fr_fcfs: requests whose first command was their access; round_robin: accesses to a row that had
    served one since its activate
dram.row_misses | - | fr_fcfs: requests whose first command was an activate; round_robin: accesses that were neither
    hits nor conflicts
dram.row_conflicts | - | fr_fcfs: requests whose first command was a precharge; round_robin: precharges for requests
dram.row_hit_share | - | hits over hits, misses and conflicts
dram.reads_forwarded | - | reads that were answered from a waiting write
dram.reads_shared | - | reads that were answered by the access of a waiting read of the same address
dram.writes_coalesced | - | writes that were merged with a waiting write to the same address
dram.rank_active_cycles | clocks | clocks with an open bank, of each rank of each pseudo-channel
dram.energy.act_pJ | pJ | activates with their precharges, over standby; all devices of all ranks; null = IDD0 is below
    what standby alone draws; energy as a whole is null where the currents are not known
dram.energy.read_pJ | pJ | reads, over standby, without pins
dram.energy.write_pJ | pJ | writes, over standby, without pins
dram.energy.refresh_pJ | pJ | all-bank refreshes, over standby
dram.energy.refresh_bank_pJ | pJ | refreshes of single banks, over standby; null = IDD5PB is not known
dram.energy.active_standby_pJ | pJ | standby of ranks with an open bank
dram.energy.precharge_standby_pJ | pJ | standby of ranks with all banks closed
dram.energy.total_pJ | pJ | the sum; null = a part is
dram.energy.average_power_mW | mW | the sum over all clocks simulated
dram.simulator.wall_s | s | time that the run took, with reading its requests and without starting up
dram.simulator.requests_per_s | 1/s | requests over that
dram.simulator.host | - | name of the computer
dram.simulator.python | - | version of Python
dram.simulator.numba | - | version of Numba
dram.simulator.version | - | version of pimloom
"""


_SYSTEMS = """
system.schema_version | - | version of this layout
system.model | - | name of the model
system.arch | - | name of the system
system.pim | - | false for the twin, whose host reads the same memory in the ordinary way
system.workload.* | - | prompt, generate, batch, embedding, head: as of machines
system.total_time_ns | ns | end of the last pass, from time 0
system.ttft_ns | ns | time to first token: end of the last prompt token's pass
system.tpot_ns | ns | mean over the new tokens after the first; null if there is one
system.tokens_per_s | 1/s | new tokens of all sequences over the total time, prompt included
system.throughput_tokens_per_s | 1/s | the same with a token in every pipeline stage, as far as the one host keeps up
system.energy_pJ.* | pJ | by command, standby, ordinary accesses, host, link; null = not known
system.energy_pJ.total | pJ | sum of what is known; null where nothing is
system.energy_left_out | - | list: parts of energy_pJ that the total lacks
system.pim_utilisation | - | MAC commands x clocks between two over channels x clocks; null without PIM
system.time_share.* | - | shares of the total time: compute (MACs streaming), row_switching, mode_switching, transfer,
    refresh, host, link; of channels that work side by side the mean
system.latency_share.* | - | shares of the total time by operator class
system.commands.* | - | commands issued, by type, refreshes included
system.ordinary_accesses | - | accesses over the memory's pins for the host
system.memory.rows_used | - | rows of every bank that hold something
system.memory.rows_total | - | rows of a bank
system.simulator.* | - | wall time, versions and host: what may differ between two runs of the same thing
kernel.device | - | name of the device
kernel.kernel | - | which kernel
kernel.shape.* | - | its sizes
kernel.channels | - | channels that hold the operands
kernel.rows_per_bank | - | rows of every bank that the operands take
kernel.refresh | - | refresh policy of the run
kernel.cycles | - | clocks of the memory from the first instruction to the last end
kernel.cycles_with_refresh | - | the same with refresh on; null where it is on already
kernel.time_ns | ns | cycles over the clock
kernel.commands.total.* | - | commands issued in all channels, by type
kernel.commands.per_channel | - | list, one entry a channel: the same of each
kernel.energy_pJ.* | pJ | by command and standby, all channels; null = not known
kernel.energy_pJ.total_known | pJ | sum of what is known
kernel.largest_relative_error | - | --check: largest difference from NumPy over the largest value
"""
