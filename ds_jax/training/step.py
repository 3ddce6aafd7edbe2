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

from ds_jax.models.create import Network, Variables, abstract_variables, frozen_layers
from ds_jax.training.input_pipeline import Inputs
from ds_jax.training.parallel import Layout

DROPOUT = 1 << 20  # parts dropout's random numbers from those of fold 0's new layers, and so on


class TrainState(flax.struct.PyTreeNode):
    """What a step changes, and the frozen layers beside it.

    Attributes:
        step: int32, steps taken.
        params: The parameters that are trained.
        frozen: The layers of VGG16 that keep their ImageNet weights.
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
        params = dict(self.params)
        if self.frozen:
            params["vgg16"] = {**self.frozen, **params.get("vgg16", {})}
        return {"params": params, "batch_stats": self.batch_stats}

    @property
    def optimizer(self) -> dict:
        """What resuming needs besides the variables."""
        return {"step": self.step, "opt_state": self.opt_state}

    def resume(self, variables: Variables, optimizer: Mapping) -> "TrainState":
        """This state with other values: `variables` and `optimizer` of one like it."""
        params = dict(variables["params"])
        if self.frozen:
            free = {k: v for k, v in params.pop("vgg16").items() if k not in self.frozen}
            params |= {"vgg16": free} if free else {}
        return self.replace(params=params, batch_stats=variables["batch_stats"], **optimizer)


def create_optimiser(train: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam with one learning rate for ported layers and another for new ones."""

    def group(path, _):
        names = {entry.key for entry in path}
        return "pretrained" if {"vgg16", "fully_connected"} & names else "new"

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
    shapes = abstract_variables(network)["params"]
    params, batch_stats = _new_layers(network, rng)
    frozen = {name: pretrained[name] for name in sorted(frozen_layers(network))}
    if free := sorted(set(shapes.get("vgg16", ())) - set(frozen)):
        params["vgg16"] = {name: pretrained[name] for name in free}
    if "fully_connected" in shapes.get("head", ()):
        params["head"]["fully_connected"] = {name: pretrained[name] for name in ("fc1", "fc2")}
    opt_state = jax.jit(optimiser.init)(params)  # or each shape of zeros compiles on its own
    return TrainState(jnp.int32(0), params, frozen, batch_stats | scaling, opt_state)


@functools.partial(jax.jit, static_argnums=0)
def _new_layers(network: Network, rng: jax.Array) -> tuple[dict, dict]:
    """Draws the layers that nothing is ported to; drawing the others takes seconds to compile."""
    inputs = jnp.zeros((1, *network.input_shape), network.input_dtype)
    variables = network.init(rng, inputs, jnp.ones(1))
    params = {name: layer for name, layer in variables["params"].items() if name != "vgg16"}
    if "head" in params:
        kept = params["head"].items()
        params["head"] = {name: layer for name, layer in kept if name != "fully_connected"}
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
