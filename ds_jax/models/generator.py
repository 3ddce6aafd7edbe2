"""A generator of timelines by their class: a small network that turns noise into pictures.

It is trained by flow matching (Lipman et al., "Flow Matching for Generative Modeling", 2023): from
a place on the straight line between noise and a picture it guesses the picture, and noise that
moves towards the guesses becomes one. It does not guess the noise, which few channels cannot hold.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

FRAMES = 128  # pixels of time that the network sees and draws; 2.05 s of the default frames
PATCH = 4  # frames that the network takes together
WAVES = 8  # octaves by which a place between noise and picture is told


class _Block(nn.Module):
    """Two layers on each patch and its neighbours, with a bypass; a condition scales and shifts.

    Attributes:
        width: The channels of what it returns.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Maps float32 [batch, patches, channels] to [batch, patches, width]."""
        scale, shift = jnp.split(nn.Dense(2 * self.width)(condition)[:, None], 2, axis=-1)
        hidden = nn.Dense(self.width)(_with_neighbours(nn.silu(nn.LayerNorm()(x))))
        hidden = nn.silu(nn.LayerNorm()(hidden) * (1 + scale) + shift)
        hidden = nn.Dense(self.width, kernel_init=nn.initializers.zeros)(_with_neighbours(hidden))
        if x.shape[-1] != self.width:
            x = nn.Dense(self.width)(x)
        return x + hidden


class Generator(nn.Module):
    """Guesses the timeline behind a mean of it and of noise: a U-Net over time.

    The bands of some frames together are the channels of a position, so that each layer is a
    product of matrices, which takes a CPU a fraction of a convolution over time and frequency.

    Attributes:
        bands: The height of the timelines.
        classes: The number of classes.
        widths: The channels of a patch, and of two together.
    """

    bands: int
    classes: int
    widths: tuple[int, int] = (192, 256)

    @nn.compact
    def __call__(
        self, x: jax.Array, seen: jax.Array, place: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Guesses a batch.

        Args:
            x: float32 [batch, frames, bands], of a number of frames that 8 divides.
            seen: float32 [batch, frames], 1 where the timeline is and 0 after its end.
            place: float32 [batch], the weight of the timeline, from 0 to 1; the rest is noise.
            labels: int32 [batch].

        Returns:
            float32 [batch, frames, bands].
        """
        shape, width = x.shape, self.widths[0]
        waves = place[:, None] * (jnp.pi / 2 * 2.0 ** jnp.arange(WAVES))[None]
        waves = jnp.concatenate([jnp.sin(waves), jnp.cos(waves)], axis=1)
        condition = nn.Dense(width)(nn.silu(nn.Dense(width)(waves)))
        strong = nn.initializers.normal(1.0)  # or classes are hardly heard beside the picture
        of_class = nn.Embed(self.classes, width, embedding_init=strong)(labels)
        condition = nn.silu(condition + of_class)
        x = jnp.concatenate([x * seen[..., None], seen[..., None]], axis=-1)
        x = nn.Dense(width)(_together(x, PATCH)) + of_class[:, None]
        passed = []
        for level, channels in enumerate(self.widths):
            x = _Block(channels)(_together(x, 2) if level else x, condition)
            passed.append(x)
        for level, channels in reversed([*enumerate(self.widths)]):
            x = _Block(channels)(jnp.concatenate([x, passed[level]], axis=-1), condition)
            if level:  # one becomes two again
                x = nn.Dense(2 * width)(x).reshape(len(x), -1, width)
        x = nn.silu(nn.LayerNorm()(x))
        return nn.Dense(PATCH * self.bands, kernel_init=nn.initializers.zeros)(x).reshape(shape)


def _together(x: jax.Array, count: int) -> jax.Array:
    """Puts the channels of so many positions after each other in one."""
    return x.reshape(len(x), -1, count * x.shape[-1])


def _with_neighbours(x: jax.Array) -> jax.Array:
    """Puts the channels of the position before, of each position, and of the one after together."""
    around = jnp.pad(x, [(0, 0), (1, 1), (0, 0)])
    return jnp.concatenate([around[:, :-2], x, around[:, 2:]], axis=-1)
