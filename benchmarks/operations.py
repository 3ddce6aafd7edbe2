"""What VGG16 costs on paper: floating-point operations, and what chips can do of them in a second.

Operations are those of the convolutions and of fc1 and fc2, two for each multiplication and
addition, whatever algorithm computes them. The heads of DS-AM are left out: 0.05 % at 224 pixels.
"""

import dataclasses
import re
from collections.abc import Iterator

from ds_jax.models.backbones import BACKBONES

# Dense peaks in FLOP/s by JAX' name of a device, for bfloat16 with float32 sums (V100 and T4:
# float16), as their makers publish them. The first name that the device's name contains is taken.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,
    "TPU v3": 61.5e12,  # a core, which is half a chip
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A layer of VGG16 on one picture.

    Attributes:
        block: The number of its block, from 1.
        side: The height and width of its maps.
        channels: The channels of the input and of the output.
    """

    block: int
    side: int
    channels: tuple[int, int]

    @property
    def flops(self) -> int:
        """Operations of the forward pass, and of each of the two gradients."""
        return 2 * 9 * self.side**2 * self.channels[0] * self.channels[1]


def peak(device_kind: str) -> float | None:
    """Returns a device's dense peak in FLOP/s; None where it is not known."""
    names = (name for name in PEAKS if re.search(rf"\b{name}\b", device_kind))
    return PEAKS.get(next(names, ""))


def convolutions(size: int, last_block: int = 5) -> Iterator[Convolution]:
    """Yields the layers of VGG16 to a block, on pictures of `size` x `size`, from below."""
    side, below = size, 3
    for number, block in enumerate(BACKBONES["vgg16"].blocks[:last_block], start=1):
        for _ in block.layers:
            yield Convolution(number, side, (below, block.channels))
            below = block.channels
        side //= 2


def fully_connected_flops(size: int) -> int:
    """Counts the operations of fc1 and fc2 on one picture, forward."""
    backbone = BACKBONES["vgg16"]
    inputs = (size // 2 ** len(backbone.blocks)) ** 2 * backbone.blocks[-1].channels
    return 2 * backbone.units * (inputs + backbone.units)


def forward_flops(size: int, first: int = 1, last_block: int = 5) -> int:
    """Counts the operations of the blocks from `first` to the last, on one picture."""
    return sum(layer.flops for layer in convolutions(size, last_block) if layer.block >= first)


def step_flops(size: int, frozen_blocks: int = 0, kept: bool = False, last_block: int = 5) -> int:
    """Counts a picture's operations in a training step: forward, and gradients of what is trained.

    The lowest layer that is trained needs no gradient for its input.

    Args:
        size: The picture's side in pixels.
        frozen_blocks: How many blocks from below are not trained.
        kept: Whether the frozen blocks' output was computed beforehand.
        last_block: The highest block that is run.
    """
    trained = [layer for layer in convolutions(size, last_block) if layer.block > frozen_blocks]
    forward = forward_flops(size, frozen_blocks + 1 if kept else 1, last_block)
    return forward + sum(2 * layer.flops for layer in trained) - sum(x.flops for x in trained[:1])


def block_flops(size: int, trained: bool) -> list[int]:
    """Counts a picture's operations by block, if no block is frozen: forward, and of gradients."""
    count = step_flops if trained else forward_flops
    totals = [count(size, last_block=last) for last in range(1, 6)]
    return [total - below for total, below in zip(totals, [0, *totals], strict=False)]
