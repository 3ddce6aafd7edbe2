"""DS-AM in PyTorch, in both of its memory formats, in float32 and in bfloat16."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class AttentionHead(nn.Module):
    """Batch normalisation, a gate of 1x1 convolutions, and the gated mean."""

    def __init__(self, side: int):
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(512, eps=1e-3, momentum=0.1)
        self.conv1, self.conv2 = nn.Conv2d(512, 64, 1), nn.Conv2d(64, 16, 1)
        self.gate_kernel = nn.Parameter(torch.empty(16, side, side))
        self.gate_bias = nn.Parameter(torch.empty(side, side))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, 512, side, side] to [batch, 512]."""
        normalised = self.batch_norm(x)
        hidden = torch.relu(self.conv2(torch.relu(self.conv1(normalised))))
        gate = torch.sigmoid((hidden * self.gate_kernel).sum(1) + self.gate_bias)
        return (gate[:, None] * normalised).mean((2, 3)) / gate.mean((1, 2))[:, None]


class Network(nn.Module):
    """VGG16's trunk under attention heads on its last two blocks."""

    def __init__(self, size: int):
        super().__init__()
        channels, self.blocks = 3, nn.ModuleList()
        for width, count in BLOCKS:
            layers = []
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.heads = nn.ModuleList([AttentionHead(size // 16), AttentionHead(size // 32)])
        self.logits = nn.ModuleList([nn.Linear(512, 7), nn.Linear(512, 7)])

    def trunk(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns block4_pool and block5_pool."""
        pools = []
        for block in self.blocks:
            x = block(x)
            pools.append(x)
        return pools[-2:]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns each head's logits."""
        pools = [pool.float() for pool in self.trunk(x)]
        with torch.autocast(x.device.type, enabled=False):
            parts = zip(pools, self.heads, self.logits, strict=True)
            return [logits(head(pool)) for pool, head, logits in parts]

    def loss(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the weighted sum of the heads' cross-entropies."""
        both = zip((1.0, 0.8), self(x), strict=True)
        return sum(weight * nn.functional.cross_entropy(logits, labels) for weight, logits in both)

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes the weights that `peer_ds_jax` drew; kernels there are [h, w, in, out]."""

        def put(layer: nn.Module, name: str) -> None:
            kernel = arrays[f"{name}/kernel"]
            kernel = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(arrays[f"{name}/bias"]))

        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                convolutions = [layer for layer in block if isinstance(layer, nn.Conv2d)]
                for index, layer in enumerate(convolutions, start=1):
                    put(layer, f"vgg16/block{number}_conv{index}")
            for number, head, logits in zip((4, 5), self.heads, self.logits, strict=True):
                name = f"head/block{number}_pool_attention"
                put(head.conv1, f"{name}/conv1")
                put(head.conv2, f"{name}/conv2")
                put(logits, f"head/block{number}_pool_logits")
                kernel = arrays[f"{name}/gate/kernel"].transpose(2, 0, 1)
                head.gate_kernel.copy_(torch.from_numpy(kernel.copy()))
                head.gate_bias.copy_(torch.from_numpy(arrays[f"{name}/gate/bias"]))


def create(folder: Path, size: int, batch: int, threads: int, cuda: bool) -> dict[str, dict]:
    """Prepares the variants, from what `peer_ds_jax.create` left.

    Returns:
        By name a variant for each memory format: on a GPU under `autocast(bfloat16)`, on the CPU in
        float32, where channels_last, the faster one, is under autocast too.
    """
    del batch
    torch.set_num_threads(threads)
    with np.load(folder / "network.npz") as file:
        arrays = dict(file)
    formats = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    variants = {f"PyTorch {name}": (memory_format, cuda) for name, memory_format in formats.items()}
    if not cuda:
        variants["PyTorch channels_last bfloat16"] = torch.channels_last, True
    return {
        name: _create(arrays, size, memory_format, "cuda" if cuda else "cpu", autocast)
        for name, (memory_format, autocast) in variants.items()
    }


def _create(
    arrays: dict[str, np.ndarray],
    size: int,
    memory_format: torch.memory_format,
    device: str,
    bfloat16: bool,
) -> dict:
    network = Network(size)
    network.load(arrays)
    network.to(device, memory_format=memory_format)
    pictures = torch.from_numpy(arrays["pictures"].transpose(0, 3, 1, 2).copy())
    x = pictures.to(device).contiguous(memory_format=memory_format)
    labels = torch.from_numpy(arrays["labels"]).long().to(device)
    trunk, heads = network.blocks.parameters(), [network.heads, network.logits]
    new = [parameter for module in heads for parameter in module.parameters()]
    groups = [{"params": list(trunk), "lr": 5e-5}, {"params": new, "lr": 5e-4}]
    optimiser = torch.optim.Adam(groups, fused=True)

    def autocast() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    def training_step() -> float:
        optimiser.zero_grad(set_to_none=True)
        with autocast():
            loss = network.loss(x, labels)
        loss.backward()
        optimiser.step()
        return loss.item()

    def forward() -> None:
        network.eval()
        with torch.inference_mode(), autocast():
            sum(logits.softmax(1) for logits in network(x)).cpu()
        network.train()

    def features() -> None:
        with torch.inference_mode(), autocast():
            network.trunk(x)[-1][:1, :1].cpu()

    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "loss": training_step,
        "forward": forward,
        "features": features,
        "training step": training_step,
    }
