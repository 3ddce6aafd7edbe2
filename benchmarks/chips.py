"""The accelerators that steps are compiled for, which need not be here."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from jax.experimental import topologies

from benchmarks import operations

H100 = Path(__file__).parent / "h100.txtpb"  # as XLA describes it


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator to compile for.

    Attributes:
        kind: JAX' name of it.
        memory: Bytes.
        clock: Cycles a second, inferred; 0 where the compiler gives no cycles.
        topologies: For each number of chips the topology's name.
    """

    kind: str
    memory: float
    clock: float
    topologies: Mapping[int, str]

    @property
    def flops_a_cycle(self) -> float:
        """Operations at the peak."""
        return operations.peak(self.kind) / self.clock

    def devices(self, count: int) -> list:
        """Returns so many of them, which need not be here.

        Raises:
            ValueError: Their compiler is not installed, or no topology of so many is known.
        """
        if count not in self.topologies:
            known = ", ".join(map(str, self.topologies))
            raise ValueError(f"--counts: {self.kind} is known in {known} chips, not {count}")
        try:
            if self.clock:
                for name, value in TPU_ENVIRONMENT.items():
                    os.environ.setdefault(name, value)
                found = topologies.get_topology_desc(self.topologies[count], "tpu")
            else:
                config, topology = H100.read_text(), self.topologies[count]
                found = topologies.get_topology_desc(
                    "", "cuda", target_config=config, topology=topology
                )
        except Exception as error:  # JAX' own types differ from platform to platform
            raise ValueError(
                f"--chips: there is no compiler for {self.kind} ({error}): "
                "pip install -r benchmarks/requirements-accelerators.txt"
            ) from error
        return list(found.devices)[:count]


# So that libtpu asks no other machine where it is.
TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
CHIPS = {
    "v5e": Chip("TPU v5 lite", 16e9, 1.5e9, {1: "v5e:2x2", 8: "v5e:2x4", 32: "v5e:4x8"}),
    "v6e": Chip("TPU v6 lite", 32e9, 1.75e9, {1: "v6e:2x2", 8: "v6e:2x4", 32: "v6e:4x8"}),
    "v5p": Chip("TPU v5", 95e9, 1.75e9, {1: "v5p:2x2x1", 8: "v5p:2x2x2", 32: "v5p:2x4x4"}),
    "H100": Chip("NVIDIA H100 80GB HBM3", 80e9, 0, {1: "1x1x1", 8: "1x1x8", 32: "1x4x8"}),
}
