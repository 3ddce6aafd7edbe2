"""The pretrained part that a network on pictures is built on, such as VGG16."""

import dataclasses
import functools
from collections.abc import Callable

from ds_jax.runtime.downloads import Package, PublishedFile


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a backbone: it may carry a gate, and be frozen with all blocks below it.

    Attributes:
        name: The name that `model.freeze` takes, such as "block4".
        output: The name of its output that `model.gates` and `model.layers` take, such as
            "block4_pool".
        channels: The channels of its output.
        layers: The names of its layers with parameters, as Keras has them.
        height: The rows of its output for the picture that the backbone was built for; 0 if it has
            no positions, and None if any picture will do, whose side each block halves.
        is_cut: Whether all that lies above reads its output alone, so that it may be frozen.
    """

    name: str
    output: str
    channels: int
    layers: tuple[str, ...]
    height: int | None = None
    is_cut: bool = True


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network that was trained on ImageNet, without its classifier.

    Attributes:
        name: The module of its blocks in a tree of parameters, such as "vgg16".
        title: The name that people read, such as "VGG16".
        size: Pixels, the side of the pictures that it was trained on, and of the one input that
            the parameters of the top layers fit.
        preprocessing: What it was trained on, see `preprocessing.network_input`.
        deepspectrum: What DeepSpectrum feeds it, a value of the same kind.
        terms: A sentence on the terms of the published parameters.
        blocks: From below; none where Keras builds the network, see `backbones.built`.
        trunk: Builds the module of the blocks, `trunk(blocks, dtype, name=...)`. The module is
            called with a batch, the numbers of the first and the last block to run, from 1, and the
            real columns of each input, if not all are. It returns the outputs by name; with
            `first > 1` the batch is the output of the block below, and is among them.
        top: Builds the module of the fully connected layers above, `top(units, dtype)`.
        trunk_onnx, top_onnx: Add the same to an ONNX graph, see `vgg16_onnx`.
        top_layers: The names of these layers.
        units: The units of each of these layers.
        fixed: The names of what training never changes, whatever is frozen.
        load: Loads the parameters, from a file or, with "", from where they are published;
            None: `pretrained.load` does.
        layer_names: A regular expression for the names of layers in files of parameters, those of
            larger relatives of this network included.
        classifier: The name of the ImageNet classifier, which files may hold and nobody reads.
        trunk_file: The published parameters of the blocks.
        full_file: The published parameters of the blocks and the top layers.
        trunk_package: Where else the parameters of the blocks are found; None if nowhere.
    """

    name: str
    title: str
    size: int
    preprocessing: str
    deepspectrum: str
    terms: str
    blocks: tuple[Block, ...] = ()
    trunk: Callable | None = None
    top: Callable | None = None
    trunk_onnx: Callable | None = None
    top_onnx: Callable | None = None
    top_layers: tuple[str, ...] = ()
    units: int = 0
    fixed: tuple[str, ...] = ()
    load: Callable | None = None
    layer_names: str = ""
    classifier: str = ""
    trunk_file: PublishedFile | None = None
    full_file: PublishedFile | None = None
    trunk_package: Package | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the blocks' outputs, from below."""
        return tuple(block.output for block in self.blocks)

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """The names of all layers that describe a picture, from below."""
        return *self.outputs, *self.top_layers[-1:]

    def input_of(self, preprocessing: str) -> str:
        """Returns the kind of input that `picture.preprocessing` means for this backbone."""
        return self.deepspectrum if preprocessing == "deepspectrum" else preprocessing

    def layers_to(self, last: int) -> tuple[str, ...]:
        """Returns the names of the layers in the blocks 1 to `last`."""
        return tuple(name for block in self.blocks[:last] for name in block.layers)

    @functools.cache  # noqa: B019  there are a few backbones, which live as long as the program
    def shapes(self, full: bool) -> dict[str, dict[str, tuple[int, ...]]]:
        """Returns the shapes of all parameters, by layer, without computing any.

        Args:
            full: Whether the top layers are among them.
        """
        import jax  # here, since a config is checked without it
        import jax.numpy as jnp

        key, picture = jax.random.key(0), jnp.zeros((1, self.size, self.size, 3))
        trunk = self.trunk(self.blocks)
        variables = jax.eval_shape(trunk.init, key, picture)["params"]
        if full:
            outputs = jax.eval_shape(trunk.apply, {"params": variables}, picture)
            top = self.top(self.units)
            top_variables = jax.eval_shape(top.init, key, outputs[self.outputs[-1]])["params"]
            variables = {**variables, **top_variables}
        names = self.layers_to(len(self.blocks)) + self.top_layers * full
        return {
            name: {kind: leaf.shape for kind, leaf in variables[name].items()} for name in names
        }
