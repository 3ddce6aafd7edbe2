"""What the folds of a run share: the corpus on the devices, and what is compiled to train on it."""

import dataclasses
from collections.abc import Callable, Mapping

import ml_collections
import optax

from ds_jax.data.corpus import Corpus
from ds_jax.models.create import Network, create_network
from ds_jax.training import inference, parallel
from ds_jax.training.input_pipeline import Inputs, create_inputs
from ds_jax.training.parallel import Layout
from ds_jax.training.step import create_optimiser, create_train_step


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is compiled for a layout.

    Attributes:
        network: Of the config, made for the layout.
        train_step: Of `create_train_step`.
        predict_step: Of `inference.create_predict_step`.
    """

    network: Network
    train_step: Callable
    predict_step: Callable


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """What all folds of a run share, so that nothing is compiled or computed twice.

    Attributes:
        config: The run's config.
        corpus: Whose folds they are.
        pretrained: VGG16's ImageNet weights, by layer.
        inputs: The corpus as steps read it.
        optimiser: Of `create_optimiser`.
        programs: For each layout that was needed.
    """

    config: ml_collections.ConfigDict
    corpus: Corpus
    pretrained: Mapping
    inputs: Inputs
    optimiser: optax.GradientTransformation
    programs: dict[Layout, Programs] = dataclasses.field(default_factory=dict)

    def programs_for(self, layout: Layout) -> Programs:
        """The steps for a layout, which compile when they are first called."""
        if layout not in self.programs:
            network = create_network(self.config, layout.axis_name, parallel.compute_dtype())
            self.programs[layout] = Programs(
                network,
                create_train_step(
                    network, self.optimiser, self.inputs, layout, self.config.seeds.dropout
                ),
                inference.create_predict_step(network, self.inputs, layout),
            )
        return self.programs[layout]


def create_experiment(
    config: ml_collections.ConfigDict, corpus: Corpus, pretrained: Mapping
) -> Experiment:
    """Puts the corpus on the devices, or prepares to stream it.

    Args:
        config: The run's config.
        corpus: Represented as the config says.
        pretrained: VGG16's ImageNet weights, by layer, see `weights.load`; empty for features.
    """
    network = create_network(config, dtype=parallel.compute_dtype())
    ported = network.port(pretrained)
    inputs = create_inputs(network, ported, corpus.inputs, corpus.labels)
    return Experiment(config, corpus, pretrained, inputs, create_optimiser(config.train, ported))
