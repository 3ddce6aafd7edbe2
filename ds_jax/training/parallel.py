"""The one place that maps steps over devices and places arrays on them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ds_jax.runtime.processes import in_any_process

AXIS = "batch"  # the mapped axis that a batch is spread over
WIDTH = 32  # inputs that a device takes together outside of training, at most
# Share of a device's memory that a resident corpus may take; the rest is the network's.
RESIDENT_SHARE = 0.5
# Host dispatches an epoch on accelerators; more would only move the progress bar oftener.
DISPATCHES = 4


def rows_together() -> int:
    """How many inputs all devices together take in one batch outside of training, at most."""
    return WIDTH * jax.device_count()


def forget_programs() -> None:
    """Lets go of what was compiled, and of the arrays that it reads; it is kept on the disk.

    JAX keeps a mapped step, and with it a corpus on the devices, as long as the process runs.
    """
    jax.clear_caches()


def compute_dtype() -> Any:
    """bfloat16 on accelerators, float32 on the CPU, which has no fast bfloat16."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def fits(size: int) -> bool:
    """Whether an array of so many bytes can lie whole on every device, beside a network.

    Asked of a device's memory and not of what is free of it, so that a run that goes on decides
    as it did before. All processes decide alike, by the smallest of their devices.
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(known and "bytes_limit" in known for known in stats):
        memory = min(known["bytes_limit"] for known in stats)
    else:  # the CPU, whose devices share the host's
        memory = psutil.virtual_memory().total // jax.local_device_count()
    return not in_any_process([size > RESIDENT_SHARE * memory])[0]


def batches_in_dispatch(batches: int) -> int:
    """How many of an epoch's batches a device works off before it hears from the host again.

    One on the CPU, where XLA's convolutions are several times slower inside a loop.
    """
    return 1 if jax.default_backend() == "cpu" else -(-batches // DISPATCHES)


def replicate(tree: Any) -> Any:
    """Puts a tree of arrays on every device of this process, whole."""
    # With several processes pmap takes and returns what each has on its own devices.
    return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """An array of zeros on every device of this process, whole."""
    sharding = NamedSharding(_local_mesh(), PartitionSpec())
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How models lie on devices: one on all of them, or one on each.

    Attributes:
        folds: Whether each device of this process has a model of its own, of a fold of its own,
            and nothing is exchanged. Otherwise one model is on all devices of all processes: they
            share its batches, and add up gradients.
    """

    folds: bool

    @property
    def lanes(self) -> int:
        """How many models this process has side by side."""
        return jax.local_device_count() if self.folds else 1

    @property
    def axis_name(self) -> str | None:
        """The axis to sum over, as steps need it; None where there is nothing to sum."""
        return None if self.folds or jax.device_count() == 1 else AXIS

    def any_process(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes that share a model.

        They wait for each other, and for what they have dispatched.
        """
        return flag if self.folds else bool(in_any_process([flag])[0])

    def width(self, batch_size: int) -> int:
        """Rows of a model's batch that one device takes."""
        return batch_size if self.folds else -(-batch_size // jax.device_count())

    def parallel(
        self,
        step: Callable,
        *,
        models: int,
        whole: int,
        spread: int,
        donate: bool = False,
        stays: bool = False,
    ) -> Callable:
        """Maps a step over devices.

        Args:
            step: Of arguments of three kinds, in this order: what belongs to a model (its state,
                or a number that differs from model to model), what every device sees whole, and
                what each device has its own part of. Returns what belongs to a model, alike on
                all devices that share it.
            models: How many arguments belong to a model: trees of `place`, values of `stack`.
            whole: How many are seen whole.
            spread: How many have a leading axis of this process' devices.
            donate: Whether the first argument's memory is taken for the result.
            stays: Whether each device keeps a result of its own, as what another step has spread.

        Returns:
            The mapped step.
        """
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(0 if self.folds else None,) * models + (None,) * whole + (0,) * spread,
            out_axes=0 if self.folds or stays else None,
            devices=jax.local_devices() if self.folds else None,
            donate_argnums=(0,) if donate else (),
        )

    def spread(
        self, batches: Sequence[Sequence[np.ndarray]], length: int, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares batches of row numbers out to the devices.

        Args:
            batches: For each model at most `length` batches, int32, of no more rows than the
                devices of a model take together.
            length: How many batches of each model a dispatch has room for.
            width: Rows a device takes of a batch.

        Returns:
            For each device of this process row numbers int32 [devices, length, width], a mask
            float32 of the same shape, and the number of batches int32 [devices]; what is left
            over is row 0 with mask 0.
        """
        shares = 1 if self.folds else jax.device_count()  # of a batch
        rows = np.zeros((self.lanes, length, shares * width), np.int32)
        mask = np.zeros(rows.shape, np.float32)
        for lane, own in enumerate(batches):
            for number, batch in enumerate(own):
                rows[lane, number, : len(batch)] = batch
                mask[lane, number, : len(batch)] = 1
        counts = np.asarray([len(own) for own in batches], np.int32)
        if self.folds:
            return rows, mask, counts
        first = jax.process_index() * jax.local_device_count()
        own = slice(first, first + jax.local_device_count())
        rows, mask = (
            x.reshape(length, shares, width).swapaxes(0, 1)[own].copy() for x in (rows, mask)
        )
        return rows, mask, counts.repeat(len(rows))

    def put(self, x: np.ndarray) -> jax.Array:
        """Starts to send an array with a leading axis of this process' devices to them."""
        return jax.device_put(x, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))

    def stack(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the models, [lanes], as `parallel` takes them."""
        return values if self.folds else values[0]

    def place(self, trees: Sequence[Any]) -> Any:
        """Puts a tree of host arrays for each model on its devices."""
        if not self.folds:
            return replicate(trees[0])
        return jax.tree.map(lambda *leaves: self.put(np.stack(leaves)), *trees)

    def replace(self, placed: Any, lane: int, tree: Any) -> Any:
        """Puts another model in the place of one; the others stay where they are."""
        if not self.folds:
            return replicate(tree)

        def replace(old: jax.Array, new: np.ndarray) -> jax.Array:
            parts = [shard.data for shard in _by_device(old)]
            parts[lane] = jax.device_put(np.asarray(new)[None], jax.local_devices()[lane])
            return jax.make_array_from_single_device_arrays(old.shape, old.sharding, parts)

        return jax.tree.map(replace, placed, tree)

    def take(self, placed: Any, lane: int) -> Any:
        """Copies a model to the host."""
        if self.folds:
            placed = jax.tree.map(lambda leaf: _by_device(leaf)[lane].data, placed)
        # Copies, since a CPU's arrays may share their memory with the next step's.
        copies = jax.tree.map(np.array, jax.device_get(placed))
        return jax.tree.map(lambda x: x.reshape(x.shape[1:]), copies) if self.folds else copies

    def scan(self, step: Callable, carry: Any, xs: Any, count: jax.Array) -> tuple[Any, Any]:
        """`jax.lax.scan` over the first `count` elements of `xs`, a number known on the device.

        Args:
            step: `(carry, x) -> (carry, y)`.
            carry: At first.
            xs: A tree of arrays with an equal leading axis.
            count: int32 scalar.

        Returns:
            The last carry, and the stacked y, with zeros beyond `count`.
        """
        length = len(jax.tree.leaves(xs)[0])

        def element(index):
            return jax.tree.map(lambda x: x[index], xs)

        if length == 1 and not self.folds:  # a loop around it would slow a CPU down
            carry, y = step(carry, element(0))
            return carry, jax.tree.map(lambda y: y[None], y)

        def body(index, loop):
            carry, ys = loop
            carry, y = step(carry, element(index))
            return carry, jax.tree.map(lambda ys, y: ys.at[index].set(y), ys, y)

        shapes = jax.eval_shape(lambda carry, xs: step(carry, element(0))[1], carry, xs)
        ys = jax.tree.map(lambda y: jnp.zeros((length, *y.shape), y.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (carry, ys))


BATCH, FOLDS = Layout(folds=False), Layout(folds=True)


def share(numbers: Sequence[int], parallel: str) -> tuple[list[int], list[int]]:
    """Says which folds this process trains one a device, and which all devices train together.

    Args:
        numbers: Of the folds to train.
        parallel: "folds", "batch", or "auto": one a device as long as there is one for every
            device, then all devices together.
    """
    count = jax.device_count()
    apart = {"folds": len(numbers), "batch": 0, "auto": len(numbers) // count * count}[parallel]
    if count == 1:  # both are the same
        apart = 0
    own = list(numbers[:apart])[jax.process_index() :: jax.process_count()]
    return own, list(numbers[apart:])


def _local_mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def _by_device(x: jax.Array) -> list:
    return sorted(x.addressable_shards, key=lambda shard: shard.index[0].start)
