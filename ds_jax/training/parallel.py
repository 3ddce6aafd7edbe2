"""The one place that maps steps over devices and places arrays on them."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ds_jax.runtime import processes
from ds_jax.runtime.processes import in_any_process

AXIS = "batch"  # the mapped axis that a batch is spread over
WIDTH = 32  # inputs that a device takes together outside of training, at most
# Share of a device's memory that a resident corpus may take; the rest is the network's.
RESIDENT_SHARE = 0.5
# Host dispatches an epoch on accelerators; more would only move the progress bar oftener.
DISPATCHES = 4


def rows_together() -> int:
    """Returns how many inputs all devices together take in a batch outside of training."""
    return WIDTH * jax.device_count()


def forget_programs() -> None:
    """Forgets what was compiled; the disk keeps it.

    JAX keeps a mapped step, and all that it holds, as long as the process runs.
    """
    jax.clear_caches()


def accelerated() -> bool:
    """Tells whether the devices are accelerators, and not the CPU."""
    return jax.default_backend() != "cpu"


def compute_dtype() -> Any:
    """Returns bfloat16 on accelerators, float32 on the CPU, where bfloat16 gains nothing.

    See benchmarks/bfloat16.py.
    """
    return jnp.bfloat16 if accelerated() else jnp.float32


def fits(size: int) -> bool:
    """Tells whether an array of so many bytes can lie whole on every device, with a network.

    A device's memory decides, and not what is free of it, so that a run that goes on decides as it
    did before. All processes decide alike, by the smallest of their devices.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in each for each in stats):
        memory = min(each["bytes_limit"] for each in stats)
    else:  # the CPU, whose devices share the host's
        memory = psutil.virtual_memory().total // jax.local_device_count()
    return not in_any_process([size > RESIDENT_SHARE * memory])[0]


def batches_in_dispatch(batches: int) -> int:
    """Returns how many of an epoch's batches a device works off in one call of the host.

    It is one on the CPU, where XLA's convolutions are several times slower inside a loop.
    """
    return max(1, -(-batches // DISPATCHES)) if accelerated() else 1


def say_compiling(what: str) -> None:
    """Says that something is compiled, while the bar of the work that waits for it stands still."""
    processes.say(
        f"compiling {what} for this computer: up to a minute on two cores, and seconds where it "
        "was compiled before"
    )


def replicate(tree: Any) -> Any:
    """Puts a tree of arrays on every device of this process, whole."""
    # With several processes pmap takes and returns what lies on the devices of each.
    return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Creates an array of zeros on every device of this process, whole."""
    sharding = NamedSharding(_local_mesh(), PartitionSpec())
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How models lie on devices: `ONE_MODEL` or `ONE_FOLD_PER_DEVICE`.

    Attributes:
        shared: Whether all devices of all processes train one model together, share its batches and
            sum its gradients. Otherwise each device of this process trains a model of another fold,
            and nothing is exchanged.
    """

    shared: bool

    @property
    def replicas(self) -> int:
        """How many models this process trains side by side."""
        return 1 if self.shared else jax.local_device_count()

    @property
    def devices(self) -> int:
        """How many devices share a batch of a model."""
        return jax.device_count() if self.shared else 1

    @property
    def axis_name(self) -> str | None:
        """The axis that a step sums over; None where there is nothing to sum."""
        return None if self.devices == 1 else AXIS

    def width(self, batch_size: int) -> int:
        """Returns how many rows of a model's batch one device takes."""
        return -(-batch_size // self.devices)

    def any_process(self, flag: bool) -> bool:
        """Tells whether a flag is set in any of the processes that share a model.

        They wait for each other, and for what they have dispatched.
        """
        return bool(in_any_process([flag])[0]) if self.shared else flag

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
            step: A function of three kinds of arguments, in this order: what belongs to a model
                (its state, or a number that differs from model to model), what every device sees
                whole, and what each device has a part of. It returns what belongs to a
                model, alike on all devices that share it.
            models: How many arguments belong to a model: trees of `place`, values of `stack`.
            whole: How many arguments every device sees whole.
            spread: How many arguments have a leading axis of this process' devices.
            donate: Whether the first argument's memory is taken for the result.
            stays: Whether each device keeps its result, which another step takes as spread.

        Returns:
            The mapped step.
        """
        model_axis = None if self.shared else 0
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(model_axis,) * models + (None,) * whole + (0,) * spread,
            out_axes=0 if stays else model_axis,
            devices=None if self.shared else jax.local_devices(),
            donate_argnums=(0,) if donate else (),
        )

    def put(self, x: np.ndarray) -> jax.Array:
        """Starts to send an array with a leading axis of this process' devices to them."""
        return jax.device_put(x, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))

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
        rows = np.zeros((len(batches), length, self.devices * width), np.int32)
        mask = np.zeros(rows.shape, np.float32)
        for model, of_model in enumerate(batches):
            for number, batch in enumerate(of_model):
                rows[model, number, : len(batch)] = batch
                mask[model, number, : len(batch)] = 1
        counts = np.asarray([len(of_model) for of_model in batches], np.int32)
        if not self.shared:
            return rows, mask, counts
        first, count = jax.process_index() * jax.local_device_count(), jax.local_device_count()
        rows, mask = (
            x.reshape(length, self.devices, width).swapaxes(0, 1)[first : first + count].copy()
            for x in (rows, mask)
        )
        return rows, mask, counts.repeat(count)

    def stack(self, values: np.ndarray) -> np.ndarray:
        """Returns numbers of the models, [replicas], in the form that `parallel` takes."""
        return values[0] if self.shared else values

    def place(self, trees: Sequence[Any]) -> Any:
        """Puts a tree of host arrays for each model on the devices of that model."""
        if self.shared:
            return replicate(trees[0])
        return jax.tree.map(lambda *leaves: self.put(np.stack(leaves)), *trees)

    def replace(self, placed: Any, replica: int, tree: Any) -> Any:
        """Puts another model in the place of one; the others stay where they are."""
        if self.shared:
            return replicate(tree)

        def replace(old: jax.Array, new: np.ndarray) -> jax.Array:
            parts = [shard.data for shard in _by_device(old)]
            parts[replica] = jax.device_put(np.asarray(new)[None], jax.local_devices()[replica])
            return jax.make_array_from_single_device_arrays(old.shape, old.sharding, parts)

        return jax.tree.map(replace, placed, tree)

    def take(self, placed: Any, replica: int) -> Any:
        """Copies a model to the host."""
        # Copies, since a CPU's arrays may share their memory with the next step's.
        if self.shared:
            return jax.tree.map(np.array, jax.device_get(placed))
        parts = jax.tree.map(lambda leaf: _by_device(leaf)[replica].data, placed)
        return jax.tree.map(lambda x: np.array(x[0]), jax.device_get(parts))

    def select(self, outputs: Any, replica: int) -> Any:
        """Returns the part of a step's outputs that belongs to a model."""
        return outputs if self.shared else jax.tree.map(lambda x: x[replica], outputs)

    def scan(self, step: Callable, carry: Any, xs: Any, count: jax.Array) -> tuple[Any, Any]:
        """Works as `jax.lax.scan` over the first `count` elements of `xs`.

        Args:
            step: A function `(carry, x) -> (carry, y)`.
            carry: What the first step is given.
            xs: A tree of arrays with an equal leading axis.
            count: int32 scalar, which the device alone knows; 1 where a shared model has one x.

        Returns:
            The last carry, and the stacked y, with zeros beyond `count`.
        """

        def element(index):
            return jax.tree.map(lambda x: x[index], xs)

        def body(index, loop):
            carry, ys = loop
            carry, y = step(carry, element(index))
            return carry, jax.tree.map(lambda ys, y: ys.at[index].set(y), ys, y)

        length = len(jax.tree.leaves(xs)[0])
        if self.shared and length == 1:  # a loop around a single step would slow a CPU down
            carry, y = step(carry, element(0))
            return carry, jax.tree.map(lambda y: y[None], y)
        shapes = jax.eval_shape(lambda carry, xs: step(carry, element(0))[1], carry, xs)
        ys = jax.tree.map(lambda y: jnp.zeros((length, *y.shape), y.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (carry, ys))


ONE_MODEL, ONE_FOLD_PER_DEVICE = Layout(shared=True), Layout(shared=False)


def read_behind(dispatches: Iterable[Any]) -> Iterator[Any]:
    """Copies the outputs of dispatches to the host, each while the devices work at the next."""
    pending = collections.deque()
    for outputs in dispatches:
        pending.append(outputs)
        if len(pending) > 1:
            yield jax.device_get(pending.popleft())
    yield from map(jax.device_get, pending)


def assign_folds(numbers: Sequence[int], parallel: str) -> tuple[list[int], list[int]]:
    """Decides which folds are trained one on a device, and which on all devices together.

    Args:
        numbers: The folds to train.
        parallel: "folds" (one on a device), "batch" (all devices together), or "auto": one on a
            device as long as there is one for every device, then all devices together.

    Returns:
        The folds that this process trains one on a device, and those that all devices train.
    """
    count = jax.device_count()
    apart = {"folds": len(numbers), "batch": 0, "auto": len(numbers) // count * count}[parallel]
    if count == 1:  # both ways are the same
        apart = 0
    of_process = list(numbers[:apart])[jax.process_index() :: jax.process_count()]
    return of_process, list(numbers[apart:])


def _local_mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def _by_device(x: jax.Array) -> list:
    return sorted(x.addressable_shards, key=lambda shard: shard.index[0].start)
