"""What VGG16 costs on paper: floating-point operations, bytes, and the chips' limits.

Operations are those of the convolutions and of fc1 and fc2, two for each multiplication and
addition, whatever algorithm computes them. The heads of DS-AM are left out: 0.05 % at 224 pixels.
"""

import dataclasses
import re
from collections.abc import Iterator

from ds_jax.models import vgg16

# Dense peaks in FLOP/s of what jax calls a device, for bfloat16 with float32 sums (V100 and T4:
# float16), as their makers publish them. The first name whose words the device's has is taken.
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
class Chip:
    """An accelerator on paper.

    Attributes:
        name: As people call it.
        peak: Dense bfloat16, FLOP/s.
        bandwidth: Of its memory, bytes/s.
    """

    name: str
    peak: float
    bandwidth: float


H100 = Chip("H100 SXM", PEAKS["H100"], 3.35e12)
V5E = Chip("TPU v5e", PEAKS["TPU v5e"], 819e9)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A layer of VGG16 on one picture.

    Attributes:
        block: From 1.
        side: Height and width of its maps.
        channels: Of the input and of the output.
        pooled: Whether its output is pooled.
    """

    block: int
    side: int
    channels: tuple[int, int]
    pooled: bool

    @property
    def flops(self) -> int:
        """Of the forward pass, and of each of the two gradients."""
        return 2 * 9 * self.side**2 * self.channels[0] * self.channels[1]

    @property
    def weights(self) -> int:
        """Numbers in the kernel."""
        return 9 * self.channels[0] * self.channels[1]


def peak(device_kind: str) -> float | None:
    """A device's dense peak in FLOP/s; None where it is not known."""
    names = (name for name in PEAKS if re.search(rf"\b{name}\b", device_kind))
    return PEAKS.get(next(names, ""))


def convolutions(size: int) -> Iterator[Convolution]:
    """Yields the layers of VGG16 on pictures of `size` x `size`, from below."""
    side, below = size, 3
    for block, (channels, count) in enumerate(vgg16.BLOCKS, start=1):
        for index in range(1, count + 1):
            yield Convolution(block, side, (below, channels), pooled=index == count)
            below = channels
        side //= 2


def fully_connected_flops(size: int) -> int:
    """Of fc1 and fc2, forward."""
    inputs = (size // 2 ** len(vgg16.BLOCKS)) ** 2 * vgg16.BLOCKS[-1][0]
    return 2 * vgg16.UNITS * (inputs + vgg16.UNITS)


def forward_flops(size: int, first: int = 1) -> int:
    """Of one picture through the blocks from `first` on."""
    return sum(layer.flops for layer in convolutions(size) if layer.block >= first)


def step_flops(size: int, frozen_blocks: int = 0, kept: bool = False) -> int:
    """Of one picture in a training step: forward, and both gradients of what is trained.

    The lowest layer that is trained needs no gradient of its input.

    Args:
        size: Of the picture, pixels.
        frozen_blocks: How many blocks from below are not trained.
        kept: Whether what those make of the picture was computed beforehand.
    """
    trained = [layer for layer in convolutions(size) if layer.block > frozen_blocks]
    forward = forward_flops(size, frozen_blocks + 1 if kept else 1)
    return forward + sum(2 * layer.flops for layer in trained) - sum(x.flops for x in trained[:1])


def step_costs(size: int, batch_size: int) -> dict[str, list[tuple[float, float]]]:
    """FLOPs and bytes of a training step, all layers trained, if nothing is read twice.

    Activations and their gradients are bfloat16, weights too but for their gradients and Adam's
    moments, which are float32. ReLUs are free, and each operation reads its inputs from the
    device's memory and writes its outputs there.

    Returns:
        For each block, and for Adam, the (FLOPs, bytes) of each operation.
    """
    costs, parameters = {}, 0
    for number, layer in enumerate(convolutions(size)):
        operations = costs.setdefault(f"block{layer.block}", [])
        read, written = (2 * batch_size * layer.side**2 * c for c in layer.channels)
        flops, weights = batch_size * layer.flops, layer.weights
        operations.append((flops, read + 2 * weights + written))  # forward
        operations.append((flops, read + written + 4 * weights))  # the kernel's gradient
        if number:
            operations.append((flops, written + 2 * weights + read))  # the input's gradient
        if layer.pooled:
            operations.append((0, written * 5 / 4))  # the maxima of what is read
            operations.append((0, written * 9 / 4))  # their gradients go to where they came from
        parameters += weights + layer.channels[1]
    # Weights, gradients and both moments are read; weights twice and moments written.
    costs["Adam"] = [(0, parameters * (4 * 4 + 3 * 4 + 2))]
    return costs


def seconds(operations: list[tuple[float, float]], chip: Chip) -> float:
    """The least time in which a chip can do the operations one after the other."""
    return sum(max(flops / chip.peak, size / chip.bandwidth) for flops, size in operations)


def ceiling(size: int, batch_size: int, chip: Chip) -> float:
    """The share of a chip's peak that a training step can reach, by its memory's bandwidth."""
    operations = [one for block in step_costs(size, batch_size).values() for one in block]
    return sum(flops for flops, _ in operations) / chip.peak / seconds(operations, chip)
