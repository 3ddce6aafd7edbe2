"""What the compilers of accelerators say of the program's own steps, without the accelerators.

    JAX_PLATFORMS=cpu python -m benchmarks.accelerators                      # a v5e, 224 pixels
    JAX_PLATFORMS=cpu python -m benchmarks.accelerators --chips v5e v6e --counts 1 8 --batches 256
    python -m benchmarks.accelerators --chips H100      # measures too where the chip is there

needs `benchmarks/requirements-accelerators.txt`. It compiles the training and the judging step for
TPUs and GPUs ahead of time. FLOP, bytes, memory, cycles, and the times, shares and hours that
follow from them are THE COMPILER'S ESTIMATES and no measurements: gathers, loops and the exchange
between chips have no cycles, so times are lower bounds. The GPUs' compiler says nothing but memory,
convolutions and collectives. A compilation takes minutes; each is written when it is done, and done
again only if the step has changed.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks import generated, measuring, operations
from benchmarks.chips import CHIPS
from benchmarks.hlo import Program
from benchmarks.throughput import BANDS, DEV_SHARE, picture_flops
from ds_jax.models.pieces import Pieces, is_pieces
from ds_jax.runtime.files import write_json
from ds_jax.training import parallel
from ds_jax.training.loop import TrainingSetup, create_setup
from ds_jax.training.parallel import ONE_FOLD_PER_DEVICE, ONE_MODEL

LAYOUTS = {"batch": ONE_MODEL, "folds": ONE_FOLD_PER_DEVICE}
STEPS = ("training", "judging")
PICTURES = 6041  # ELRA-S0329's, which lie on the devices
TRIED = 2  # that are really made, to learn the shapes
DISPATCHES = 3  # that are timed where the chip is there
# The paper's experiments with DS-AM: their configs, and the utterances of their corpora.
EXPERIMENTS = {"ds_am_elra": PICTURES, "ds_am_emomatch": 2050}


# Without the chip no kernel can be tried; Triton's do not compile then.
GPU_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True)
class Row:
    """What is compiled.

    Attributes:
        chip: A name of `CHIPS`.
        count: How many chips.
        system: "ds_am" or "ds_am_statistics".
        size: Pixels of square pictures; 0 for timelines.
        batch: Pictures of a model's batch, over all chips that share it.
        freeze: The highest frozen block, or "".
        layout: A name of `LAYOUTS`.
        step: One of `STEPS`.
    """

    chip: str
    count: int
    system: str
    size: int
    batch: int
    freeze: str
    layout: str
    step: str

    @property
    def where(self) -> str:
        """The chips, and what they share."""
        shared = {"batch": " share a batch", "folds": " with a fold each"}[self.layout]
        return f"{self.count} x {self.chip}" + (shared if self.count > 1 else "")

    @property
    def name(self) -> str:
        """Its name in tables and in the JSON."""
        shape = self.size or f"{BANDS}x{generated.COLUMNS}"
        frozen = f"{self.freeze or 'nothing'} frozen"
        return f"{self.where}, {self.system} {shape}, {frozen}, batch {self.batch}, {self.step}"


@contextlib.contextmanager
def told_of(devices: Sequence | None, memory: float = 0.0) -> Iterator[None]:
    """Lets the program decide as it does on accelerators, and map steps over these devices.

    Args:
        devices: The devices; None leaves this machine's, on which arrays can be placed.
        memory: Bytes of each, where arrays are placed on behalf of a whole corpus.
    """

    def fits(size: int) -> bool:
        return size * PICTURES / TRIED <= parallel.RESIDENT_SHARE * memory

    pmap = jax.pmap
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(jax, "default_backend", return_value="accelerator"))
        if devices is None:
            stack.enter_context(mock.patch.object(parallel, "fits", fits))
        else:

            def over(*arguments, **options):
                return pmap(*arguments, **options | {"devices": devices})

            stack.enter_context(mock.patch.object(jax, "pmap", over))
            for name in ("device_count", "local_device_count"):
                stack.enter_context(mock.patch.object(jax, name, return_value=len(devices)))
        yield


def described(x: Any, rows: int = PICTURES) -> Any:
    """Describes a node of a generated corpus, as it would be with so many pictures."""
    if not is_pieces(x):
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
    pieces = jax.tree.map(lambda pieces: described(pieces, rows * x.width), x.pieces)
    return Pieces(pieces, described(x.starts), described(x.counts), x.width)


def lowered(setup: TrainingSetup, row: Row, devices: Sequence) -> tuple:
    """Lowers the step of a row for devices; returns it, and how many batches a dispatch has."""
    layout, shape = LAYOUTS[row.layout], jax.ShapeDtypeStruct
    with told_of(None):
        made = generated.arguments(setup, ONE_MODEL, -(-PICTURES // row.batch))
    state, number, scale, corpus, labels, rows, *_ = made
    with told_of(devices):
        lead = () if layout.shared else (len(devices),)
        models = jax.tree.map(
            lambda x: shape((*lead, *np.shape(x)), x.dtype),
            (state, number, scale) if row.step == "training" else (state.model,),
        )
        corpus = jax.tree.map(described, (corpus, labels), is_leaf=is_pieces)
        places = len(devices), rows.shape[1], layout.width(row.batch)
        chunk = shape(places, np.int32), shape(places, np.float32), shape(places[:1], np.int32)
        step = dataclasses.replace(setup, steps={}).steps_for(layout)[STEPS.index(row.step)]
        return step.lower(*models, *corpus, *chunk), rows.shape[1]


@functools.lru_cache(maxsize=1)
def set_up(system: str, size: int, batch: int, freeze: str, chip: str) -> TrainingSetup:
    """Prepares to train as on a chip, with a few generated pictures in place of the corpus."""
    config = generated.config(size if system == "ds_am" else 0, batch, 1, freeze)
    side = config.picture.canvas
    shape = (side, side) if system == "ds_am" else (BANDS, generated.COLUMNS)
    corpus = generated.corpus(TRIED, *shape)
    with told_of(None, CHIPS[chip].memory):
        setup = create_setup(config, corpus, generated.weights(config.picture.size))
    if setup.inputs.streamed:
        raise ValueError(f"the corpus does not fit on a {chip}, and streaming is not compiled")
    return setup


def compiled(row: Row, known: Mapping) -> dict:
    """Compiles the step of a row; returns what the compiler says, or what is known of the step."""
    chip = CHIPS[row.chip]
    devices = chip.devices(row.count)
    setup = set_up(row.system, row.size, row.batch, row.freeze, row.chip)
    began = time.monotonic()
    program, batches = lowered(setup, row, devices)
    digest = hashlib.sha256(program.as_text().encode()).hexdigest()[:16]
    if known.get("step") == digest:
        return dict(known)
    found = {"row": dataclasses.asdict(row), "step": digest, "fits": False}
    print(f"compiling {row.name}: this takes minutes", flush=True)
    try:
        result = program.compile(None if chip.clock else GPU_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return found
    found["seconds to compile"] = time.monotonic() - began
    costs, memory = result.cost_analysis() or {}, result.memory_analysis()
    needed = memory.peak_memory_in_bytes or (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    found |= {"FLOP": costs.get("flops"), "bytes": costs.get("bytes accessed")}
    found |= {"peak memory": needed, "fits": needed <= chip.memory}
    found |= Program(result.as_text()).report(batches)
    found["pictures"] = row.batch * (1 if row.layout == "batch" else row.count)
    flops = picture_flops(setup.config, setup.inputs.method == "upper", row.step == "training")
    peak = row.count * operations.peak(devices[0].device_kind)
    found["seconds at the peak"] = found["pictures"] * flops / peak
    if chip.clock and found["cycles"]:
        found["seconds"] = found["cycles"] / chip.clock
    return found


def timed(setup: TrainingSetup, row: Row) -> float:
    """Returns the seconds that a step of a row takes on this machine."""
    layout = LAYOUTS[row.layout]
    state, number, scale, *chunk = generated.arguments(setup, layout, -(-PICTURES // row.batch))
    train_step, predict_step = setup.steps_for(layout)
    taken = []
    for _ in range(DISPATCHES + 1):
        began = time.perf_counter()
        if row.step == "training":
            state, outputs = train_step(state, number, scale, *chunk)
        else:
            outputs = predict_step(state.model, *chunk)
        jax.block_until_ready(outputs)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) / chunk[2].shape[1]  # the first compiles


def hours(config, utterances: int, row: Row, training: float, judging: float) -> float:
    """Returns the hours of all folds and epochs of an experiment, none stopped early.

    Args:
        config: The experiment's.
        utterances: Of its corpus.
        row: Says how folds lie on how many chips, and the batch.
        training: Seconds of a training step.
        judging: Seconds of a judging step.
    """
    folds = config.folds.count
    test = utterances // folds
    dev = (utterances - test) // (DEV_SHARE + 1)
    batches = [-(-part // row.batch) for part in (utterances - test - dev, dev, test)]
    fold = config.train.epochs * (batches[0] * training + batches[1] * judging)
    rounds = folds if row.layout == "batch" else -(-folds // row.count)
    return rounds * (fold + batches[2] * judging) / 3600


def experiments(found: Sequence[dict]) -> list[tuple]:
    """Returns the hours of the paper's experiments on the chips of which both steps are known."""
    seconds = {Row(**one["row"]): one.get("seconds") for one in found}
    cells = []
    for row, training in seconds.items():
        judging = seconds.get(dataclasses.replace(row, step="judging"))
        for name, utterances in EXPERIMENTS.items():
            config = importlib.import_module(f"configs.{name}").get_config()
            alike = config.system, config.picture.size, config.model.freeze
            known = row.step == "training" and training and judging
            if known and alike == (row.system, row.size, row.freeze):
                taken = hours(config, utterances, row, training, judging)
                cells.append((name, row.where, row.batch, taken))
    return cells


def show(found: Sequence[dict]) -> None:
    """Prints what was found of rows."""
    heads = ["one chip, by its compiler's estimates", "GFLOP a step", "GB moved", "GB at most"]
    heads += ["Mcycles", "of convolutions"]
    kinds = {"seconds": "at least, at most"}  # times, and rates
    if any("measured seconds" in one for one in found):
        kinds["measured seconds"] = "MEASURED, MEASURED"
    for words in kinds.values():
        least, most = words.split(", ")
        heads += [f"ms, {least}", f"pictures/s of all, {most}", f"share of peak, {most}"]
    cells = []
    for one in found:
        row, numbers = Row(**one["row"]), ["does not fit"]
        if one["fits"]:
            parts = [(name, 1e9) for name in ("FLOP", "bytes", "peak memory")]
            parts += [(name, 1e6) for name in ("cycles", "cycles of convolutions")]
            numbers = [one[name] / unit if one[name] else None for name, unit in parts]
            for seconds in map(one.get, kinds):
                parts = (1e3 * seconds, one["pictures"] / seconds) if seconds else (None, None)
                share = seconds and one["seconds at the peak"] / seconds
                numbers += [*parts, share or None]
        cells.append((row.name, *numbers, *[None] * (len(heads) - 1 - len(numbers))))
    measuring.table("steps compiled for accelerators", heads, cells)
    for one in (one for one in found if one["fits"]):
        wide = one["float32 convolutions"]
        print(f"\n{Row(**one['row']).name}")
        print(
            f"  of {one['convolutions']} convolutions {wide['backbone']} of the backbone and "
            f"{wide['heads']} of the heads read float32"
        )
        if one["cycles"]:
            print(f"  {one['cycles of inputs'] / one['cycles']:.1%} of the cycles: inputs")
        for each in one["collectives"]:
            how = "overlaps" if each["overlaps"] else "overlaps with nothing"
            print(f"  {each['name']} of {each['bytes']:,} bytes {how}")
        for each in one["moves"]:
            print(f"  {each['share']:.1%} of the cycles: {each['op']} {each['shape']} {each['of']}")
    show_blocks([one for one in found if one.get("cycles") and one.get("blocks")])
    if cells := experiments(found):
        heads = "the paper's experiment", "chips", "batch", "hours by the estimates, at least"
        measuring.table("all folds and epochs, none stopped early", heads, cells)


def show_blocks(found: Sequence[dict]) -> None:
    """Prints where the cycles of steps go, and which convolutions are far below the peak."""
    heads = ["step", "block", "cycles: forward", "gradients", "the rest", "share of peak"]
    cells = []
    for one in found:
        row = Row(**one["row"])
        flops = operations.block_flops(row.size, row.step == "training")
        at_peak = one["pictures"] / row.count / CHIPS[row.chip].flops_a_cycle
        for number, (block, parts) in enumerate(one["blocks"].items()):
            shares = [f"{cycles / one['cycles']:.1%}" for cycles in parts.values()]
            convolving = parts["forward"] + parts["gradients"]
            share = None
            if row.size and not row.freeze:
                share = f"{flops[number] * at_peak / convolving:.0%}"
            cells.append((row.name, block, *shares, share))
    if cells:
        measuring.table("VGG16's blocks, convolutions and the rest", heads, cells)


def rows_of(flags: argparse.Namespace) -> list[Row]:
    """Returns the rows that the flags ask for."""
    names = ("chips", "counts", "systems", "sizes", "batches", "freeze", "layouts", "steps")
    rows = {}
    for values in itertools.product(*(getattr(flags, name) for name in names)):
        row = Row(*values)
        size = row.size if row.system == "ds_am" else 0
        layout = row.layout if row.count > 1 else "batch"  # on one chip both are the same
        rows[dataclasses.replace(row, size=size, layout=layout)] = None
    return list(rows)


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Compiles, measures where it can, prints, and writes."""
    parser = measuring.parser("accelerators", __doc__)
    add = functools.partial(parser.add_argument, nargs="+")
    add("--chips", default=["v5e"], choices=CHIPS, help="to compile for")
    add("--counts", default=[1], type=measuring.positive, help="of chips")
    add("--systems", default=["ds_am"], choices=("ds_am", "ds_am_statistics"), help="networks")
    add("--sizes", default=[224], type=measuring.positive, help="of square pictures, pixels")
    add("--batches", default=[32], type=measuring.positive, help="pictures of a model's batch")
    add("--freeze", default=[""], help="highest blocks that are frozen, as block3")
    add("--layouts", default=["batch"], choices=LAYOUTS, help="what several chips share")
    add("--steps", default=STEPS, choices=STEPS, help="to compile")
    parser.add_argument("--largest", action="store_true", help="double batches while they fit")
    flags = parser.parse_args(arguments)
    kept = json.loads(flags.output.read_text()) if flags.output.exists() else {}
    found, rows = [], rows_of(flags)
    while rows:
        row = rows.pop(0)
        one = compiled(row, kept.get(row.name, {}))
        here = jax.devices()
        if one["fits"] and (here[0].device_kind, len(here)) == (CHIPS[row.chip].kind, row.count):
            setup = set_up(row.system, row.size, row.batch, row.freeze, row.chip)
            one["measured seconds"] = timed(setup, row)
        kept[row.name] = one
        write_json(flags.output, kept)
        found.append(one)
        if flags.largest and one["fits"]:
            rows.insert(0, dataclasses.replace(row, batch=2 * row.batch))
    show(found)
    print(f"\n{flags.output}")
    return found


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # a kept program says too little
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
