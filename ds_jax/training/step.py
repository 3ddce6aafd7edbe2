"""What training changes, and the step that changes it."""

import functools
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from ds_jax.models.create import (
    Network,
    Variables,
    merge_params,
    split_frozen,
)
from ds_jax.training.input_pipeline import Inputs
from ds_jax.training.parallel import Layout

DROPOUT = 1 << 20  # parts dropout's random numbers from those of fold 0's new layers, and so on


class TrainState(flax.struct.PyTreeNode):
    """What a step changes, and the frozen layers beside it.

    Attributes:
        step: int32, steps taken.
        params: The parameters that are trained.
        frozen: The parameters that keep their ImageNet weights, by module and layer.
        batch_stats: Running statistics of batch normalisation.
        opt_state: Of the optimiser.
    """

    step: jax.Array
    params: Mapping
    frozen: Mapping
    batch_stats: Mapping
    opt_state: optax.OptState

    @property
    def variables(self) -> Variables:
        """What the network is applied with."""
        params = merge_params(self.frozen, self.params)
        return {"params": params, "batch_stats": self.batch_stats}

    @property
    def optimizer(self) -> dict:
        """What resuming needs besides the variables."""
        return {"step": self.step, "opt_state": self.opt_state}

    def resume(self, variables: Variables, optimizer: Mapping) -> "TrainState":
        """This state with other values: `variables` and `optimizer` of one like it."""
        params = {
            module: {name: variables["params"][module][name] for name in layers}
            for module, layers in self.params.items()
        }
        return self.replace(params=params, batch_stats=variables["batch_stats"], **optimizer)


def create_optimiser(
    train: ml_collections.ConfigDict, ported: Mapping
) -> optax.GradientTransformation:
    """Creates Adam with one learning rate for ported layers and another for new ones.

    Args:
        train: The fields of `config.train`.
        ported: What `network.port` returns: the layers that are not new.
    """
    paths = {path for path, _ in jax.tree_util.tree_leaves_with_path(ported)}

    def group(path, _):
        return "pretrained" if path in paths else "new"

    optimisers = {"new": optax.adam(train.new_learning_rate)}
    if "pretrained_learning_rate" in train:
        optimisers["pretrained"] = optax.adam(train.pretrained_learning_rate)
    return optax.multi_transform(
        optimisers, lambda params: jax.tree_util.tree_map_with_path(group, params)
    )


def create_state(
    network: Network,
    optimiser: optax.GradientTransformation,
    pretrained: Mapping,
    rng: jax.Array,
    scaling: Mapping[str, np.ndarray],
) -> TrainState:
    """Initialises the network, with ported weights where there are some.

    Args:
        network: To be trained.
        optimiser: Of `create_optimiser`.
        pretrained: VGG16's ImageNet weights, by layer.
        rng: Of the new layers.
        scaling: What the network's `scaling` measured on the training side.
    """
    new, batch_stats = _new_layers(network, rng)
    frozen, trained = split_frozen(network, network.port(pretrained))
    params = merge_params(new, trained)
    opt_state = jax.jit(optimiser.init)(params)  # or each shape of zeros compiles on its own
    return TrainState(jnp.int32(0), params, frozen, batch_stats | scaling, opt_state)


@functools.partial(jax.jit, static_argnums=0)
def _new_layers(network: Network, rng: jax.Array) -> tuple[dict, dict]:
    """Draws the layers that nothing is ported to; drawing the others takes seconds to compile."""
    inputs = jnp.zeros((1, *network.input_shape), network.input_dtype)
    variables = network.init(rng, inputs, jnp.ones(1))
    params = {}
    for module, layers in variables["params"].items():
        ported = network.ported_layers.get(module, ())
        if new := {name: layer for name, layer in layers.items() if name not in ported}:
            params[module] = new
    return params, dict(variables.get("batch_stats", {}))


def create_train_step(
    network: Network,
    optimiser: optax.GradientTransformation,
    inputs: Inputs,
    layout: Layout,
    seed: int,
) -> Callable:
    """Maps a dispatch of training steps over devices; compiled once, at its first call.

    Args:
        network: To be trained, made for the layout's axis.
        optimiser: Of `create_optimiser`.
        inputs: That the steps read.
        layout: How models lie on devices.
        seed: Of dropout, together with a fold's number.

    Returns:
        `(state, number, scale, *chunk of inputs) -> state, losses`: a step for each batch of the
        chunk. `number` is the fold's, `scale` multiplies all learning rates, and `losses` are
        float32 [batches that a chunk has room for].
    """

    def train_step(state, number, scale, corpus, labels, rows, mask, count):
        key = jax.random.fold_in(jax.random.key(seed), DROPOUT)
        rng = jax.random.fold_in(key, number)

        def step(state, batch):
            rows, mask = batch
            # Divided by the rows of all devices together: their numbers of real rows differ.
            total = _sum(layout, jnp.sum(mask))
            positions = _device(layout) * len(rows) + jnp.arange(len(rows))
            step_rng = jax.random.fold_in(rng, state.step)
            rngs = jax.vmap(lambda position: jax.random.fold_in(step_rng, position))(positions)

            def loss_fn(params):
                outputs, updated = network.apply(
                    state.replace(params=params).variables,
                    corpus[rows],
                    mask,
                    True,
                    rngs,
                    method=inputs.method,
                    mutable=["batch_stats"],
                )
                return jnp.sum(outputs.losses(labels[rows]) * mask) / total, updated

            (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
            # One sum of one vector: the devices of a batch speak once a step.
            vector, whole = ravel_pytree((loss, gradients))
            loss, gradients = whole(_sum(layout, vector))
            updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
            updates = jax.tree.map(lambda update: scale * update, updates)
            state = state.replace(
                step=state.step + 1,
                params=optax.apply_updates(state.params, updates),
                batch_stats=updated.get("batch_stats", {}),
                opt_state=opt_state,
            )
            return state, loss

        return layout.scan(step, state, (rows, mask), count)

    return inputs.parallel(layout, train_step, models=3, donate=True)


def _device(layout: Layout) -> jax.Array | int:
    """Which of the devices that share a batch this is."""
    return 0 if layout.axis_name is None else jax.lax.axis_index(layout.axis_name)


def _sum(layout: Layout, tree):
    """Adds up over the devices that share a batch."""
    return tree if layout.axis_name is None else jax.lax.psum(tree, layout.axis_name)
