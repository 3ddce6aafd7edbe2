"""The training step and the prediction step, and the state that training changes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ds_jax.config import is_scheduled
from ds_jax.models.create import Variables, merge_params, split_frozen
from ds_jax.models.layers import Network
from ds_jax.models.pieces import Pieces, is_pieces
from ds_jax.training.input_pipeline import Inputs, Rows
from ds_jax.training.parallel import Layout

# Keep the random numbers of dropout, of augmentation and of mixing apart from each other, and from
# those of the new layers of fold 0, fold 1, and so on.
DROPOUT, AUGMENTATION, MIXING = 1 << 20, (1 << 20) + 1, (1 << 20) + 2
AVERAGE = 0.98  # what the moving average of the parameters keeps in a step, at most


class Schedule(flax.struct.PyTreeNode):
    """What a fixed number of epochs adds to the state of training.

    Attributes:
        steps: int32, the steps that training takes in all.
        class_weights: float32 [classes], by which losses are multiplied: classes count equally.
        average: The moving average of the trained parameters, which is the model.
    """

    steps: jax.Array
    class_weights: jax.Array
    average: Mapping


class TrainState(flax.struct.PyTreeNode):
    """What a training step changes, and the frozen layers that it reads besides.

    Attributes:
        step: int32, steps taken.
        params: The parameters that are trained, by module and layer.
        frozen: The parameters that keep their ImageNet weights, by module and layer.
        batch_stats: Running statistics of batch normalisation, and the scaling of features.
        opt_state: The optimiser's state.
        schedule: What a fixed number of epochs needs; None where an epoch is chosen.
    """

    step: jax.Array
    params: Mapping
    frozen: Mapping
    batch_stats: Mapping
    opt_state: optax.OptState
    schedule: Schedule | None = None

    @property
    def variables(self) -> Variables:
        """What the network is applied with in training."""
        params = merge_params(self.frozen, self.params)
        return {"params": params, "batch_stats": self.batch_stats}

    @property
    def model(self) -> Variables:
        """What the network predicts with."""
        if self.schedule is None:
            return self.variables
        return self.replace(params=self.schedule.average).variables


def create_optimiser(
    train: ml_collections.ConfigDict, ported: Mapping
) -> optax.GradientTransformation:
    """Creates Adam with one learning rate for ported layers and another for new ones.

    With a fixed number of epochs it is AdamW.

    Args:
        train: The fields of `config.train`.
        ported: The layers that are not new, as `network.port` returns them.
    """
    adam = optax.adam
    if is_scheduled(train):
        adam = functools.partial(optax.adamw, weight_decay=train.weight_decay)
    paths = {path for path, _ in jax.tree_util.tree_leaves_with_path(ported)}

    def group(path, _):
        return "pretrained" if path in paths else "new"

    optimisers = {"new": adam(train.new_learning_rate)}
    if "pretrained_learning_rate" in train:
        optimisers["pretrained"] = adam(train.pretrained_learning_rate)
    return optax.multi_transform(
        optimisers, lambda params: jax.tree_util.tree_map_with_path(group, params)
    )


def rate_share(step: jax.Array, steps: jax.Array) -> jax.Array:
    """Returns the share of the learning rate at a step, from 0, of a fixed number of steps.

    It rises in equal parts over the first tenth, and then falls to 0 as a cosine.
    """
    rising = jnp.maximum(steps // 10, 1)
    falling = (step - rising) / jnp.maximum(steps - rising, 1)
    return jnp.where(
        step < rising, (step + 1) / rising, (1 + jnp.cos(jnp.pi * jnp.clip(falling, 0, 1))) / 2
    )


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weight of each class's losses, float32 [classes]; their mean over labels is 1."""
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * np.maximum(counts, 1)) * (counts > 0)).astype(np.float32)


def create_state(
    network: Network,
    optimiser: optax.GradientTransformation,
    pretrained: Mapping,
    rng: jax.Array,
    scaling: Mapping[str, np.ndarray],
    steps: int | None = None,
    weights: np.ndarray | None = None,
) -> TrainState:
    """Initialises the network, with ported weights in the layers that have them.

    Args:
        network: The network to be trained.
        optimiser: The result of `create_optimiser`.
        pretrained: The backbone's ImageNet weights, by layer.
        rng: The random key of the new layers.
        scaling: What the network's `scaling` measured on the training split.
        steps: The steps that training takes in all, where the number of epochs is fixed.
        weights: The `class_weights` of the training split, where the number of epochs is fixed.
    """
    ported = network.port(pretrained)
    names = frozenset((module, name) for module, layers in ported.items() for name in layers)
    new, batch_stats = _new_layers(network, names, rng)
    frozen, trained = split_frozen(network, ported)
    params = merge_params(new, trained)
    opt_state = jax.jit(optimiser.init)(params)  # or each shape of zeros is compiled alone
    schedule = None
    if steps is not None:
        average = jax.tree.map(jnp.array, params)  # a copy, since steps take over their arguments
        schedule = Schedule(jnp.int32(steps), jnp.asarray(weights), average)
    return TrainState(jnp.int32(0), params, frozen, batch_stats | scaling, opt_state, schedule)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _new_layers(
    network: Network, ported: frozenset[tuple[str, str]], rng: jax.Array
) -> tuple[dict, dict]:
    """Draws the layers that nothing is ported to; drawing the others takes seconds to compile."""
    inputs = jnp.zeros((1, *network.input_shape), network.input_dtype)
    variables = network.init(rng, inputs, jnp.ones(1))
    params = {}
    for module, layers in variables["params"].items():
        new = {name: layer for name, layer in layers.items() if (module, name) not in ported}
        if new:
            params[module] = new
    return params, dict(variables.get("batch_stats", {}))


def create_train_step(
    network: Network,
    optimiser: optax.GradientTransformation,
    inputs: Inputs,
    layout: Layout,
    seeds: ml_collections.ConfigDict,
    smoothing: float = 0.0,
    mixup: float = 0.0,
) -> Callable:
    """Maps a dispatch of training steps over devices; compiled once, at its first call.

    Args:
        network: The network to be trained, made for the layout's axis.
        optimiser: The result of `create_optimiser`.
        inputs: What the steps read.
        layout: How models lie on devices.
        seeds: The fields of `config.seeds`; a fold's number is added to each.
        smoothing: The share of a label that is spread over all labels.
        mixup: Both parameters of the beta distribution of a row's share, where each row is mixed
            with the next of its batch; 0 mixes none. What is mixed is the output of frozen blocks
            (Verma et al., "Manifold Mixup", 2019), or pictures (Zhang et al., "mixup", 2018).

    Returns:
        `(state, number, scale, *chunk of inputs) -> state, losses`: a step for each batch of the
        chunk. `number` is the fold's, `scale` multiplies all learning rates, and `losses` are
        float32 [batches that a chunk has room for].
    """

    reads = inputs.method  # alone, since JAX keeps a step, and all that it holds
    crops = network.augments and reads == "upper"  # which are read alone

    def train_step(state, number, scale, corpus, labels, rows, mask, count):
        def step(state, batch):
            rows, mask = batch
            # Divided by the rows of all devices together: their numbers of real rows differ.
            total = _sum(layout, jnp.sum(mask))
            positions = _device(layout) * len(rows) + jnp.arange(len(rows))

            def row_rngs(seed, stream):
                rng = jax.random.fold_in(jax.random.key(seed), stream)
                rng = jax.random.fold_in(jax.random.fold_in(rng, number), state.step)
                return jax.vmap(lambda position: jax.random.fold_in(rng, position))(positions)

            batch, method = (select if crops else take)(corpus, rows), reads
            if network.augments:
                if not crops:
                    batch = network.apply(state.variables, batch, method="lower")
                batch = network.augment(batch, row_rngs(seeds.augmentation, AUGMENTATION))
                method = "upper"
            targets = [(mask, labels[rows])]  # what each label weighs
            if mixup:
                keys = row_rngs(seeds.augmentation, MIXING)
                kept = jax.vmap(lambda key: jax.random.beta(key, mixup, mixup))(keys)
                others, other_labels = _next(layout, (batch, labels[rows]), positions, total)
                batch = network.mix(batch, others, kept)
                targets = [(mask * kept, labels[rows]), (mask * (1 - kept), other_labels)]
            if state.schedule is not None:
                balance = state.schedule.class_weights
                targets = [(weights * balance[classes], classes) for weights, classes in targets]

            def loss_fn(params):
                outputs, updated = network.apply(
                    state.replace(params=params).variables,
                    batch,
                    mask,
                    True,
                    row_rngs(seeds.dropout, DROPOUT),
                    method=method,
                    mutable=["batch_stats"],
                )
                losses = sum(
                    outputs.losses(classes, smoothing) * weights for weights, classes in targets
                )
                return jnp.sum(losses) / total, updated

            (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
            # One sum of one vector: the devices of a batch speak once a step.
            vector, whole = ravel_pytree((loss, gradients))
            loss, gradients = whole(_sum(layout, vector))
            updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
            share = scale
            if state.schedule is not None:
                share = scale * rate_share(state.step, state.schedule.steps)
            updates = jax.tree.map(lambda update: share * update, updates)
            params = optax.apply_updates(state.params, updates)
            state = state.replace(
                step=state.step + 1,
                params=params,
                batch_stats=updated.get("batch_stats", {}),
                opt_state=opt_state,
                schedule=_averaged(state, params),
            )
            return state, loss

        return layout.scan(step, state, (rows, mask), count)

    return inputs.parallel(layout, train_step, models=3, donate=True)


def create_predict_step(network: Network, inputs: Inputs, layout: Layout) -> Callable:
    """Maps a dispatch of predictions over devices; compiled once, at its first call.

    Args:
        network: The network that predicts, made for the layout's axis.
        inputs: What the steps read.
        layout: How models lie on devices.

    Returns:
        `(variables, *chunk of inputs) -> logits, head logits, gates`, each with leading axes
        [batches that a chunk has room for, rows that a model's devices take together].
    """

    reads = inputs.method

    def predict_step(variables, corpus, labels, rows, mask, count):
        del labels

        def step(_, batch):
            rows, mask = batch
            outputs = network.apply(variables, take(corpus, rows), mask, method=reads)
            return (), (outputs.logits, outputs.head_logits, outputs.gates)

        _, outputs = layout.scan(step, (), (rows, mask), count)
        return gather(outputs, layout)

    return inputs.parallel(layout, predict_step, models=1)


def create_moments_step(network: Network, inputs: Inputs, layout: Layout) -> Callable:
    """Maps a dispatch of the network's `moments` over devices, as `create_predict_step` does."""

    reads = inputs.method

    def moments_step(variables, corpus, labels, rows, mask, count):
        del labels

        def step(_, batch):
            batch = take(corpus, batch[0])
            if reads == "__call__":
                batch = network.apply(variables, batch, method="lower")
            return (), network.apply(variables, batch, method="moments")

        _, outputs = layout.scan(step, (), (rows, mask), count)
        return gather(outputs, layout)

    return inputs.parallel(layout, moments_step, models=1)


def take(corpus: Any, rows: jax.Array) -> Any:
    """Returns some rows of each array of a tree, which may be `Rows` or `Pieces`, as arrays."""
    with jax.named_scope("take"):
        selected = select(corpus, rows)
        return jax.tree.map(lambda x: x.whole() if is_pieces(x) else x, selected, is_leaf=is_pieces)


def select(corpus: Any, rows: jax.Array) -> Any:
    """Returns what `take` does, but leaves `Pieces` as they are, to be read in part."""

    def of_node(x):
        if is_pieces(x):
            return x.rows(rows)
        return x.batch(rows) if isinstance(x, Rows) else x[rows]

    return jax.tree.map(of_node, corpus, is_leaf=lambda x: isinstance(x, Rows | Pieces))


def gather(outputs: Any, layout: Layout) -> Any:
    """Collects the rows [batches, rows, ...] of the devices that share a batch, on each of them."""
    if layout.axis_name is None:
        return outputs
    return jax.tree.map(
        lambda x: jax.lax.all_gather(x, layout.axis_name, axis=1, tiled=True), outputs
    )


def _averaged(state: TrainState, params: Mapping) -> Schedule | None:
    """Returns the schedule with the average that new parameters have moved, if there is one."""
    if state.schedule is None:
        return None
    # The average follows at once in the beginning, when parameters change most.
    kept = jnp.minimum(AVERAGE, (state.step + 1) / (state.step + 10))
    average = jax.tree.map(
        lambda old, new: kept * old + (1 - kept) * new, state.schedule.average, params
    )
    return state.schedule.replace(average=average)


def _device(layout: Layout) -> jax.Array | int:
    """Returns the number of this device among those that share a batch."""
    return 0 if layout.axis_name is None else jax.lax.axis_index(layout.axis_name)


def _next(layout: Layout, tree: Any, positions: jax.Array, count: jax.Array) -> Any:
    """Returns the next of the batch's `count` real rows for each row, the first after the last."""

    def following(x):
        if layout.axis_name is not None:
            x = jax.lax.all_gather(x, layout.axis_name, tiled=True)
        return x[(positions + 1) % jnp.maximum(count, 1).astype(int)]

    return jax.tree.map(following, tree)


def _sum(layout: Layout, tree):
    """Adds up over the devices that share a batch."""
    return tree if layout.axis_name is None else jax.lax.psum(tree, layout.axis_name)
