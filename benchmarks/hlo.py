"""Reads the text of a program that XLA has compiled: its step, cycles, convolutions, collectives.

Cycles are what the TPU's compiler estimates for an instruction (`estimated_cycles`). Gathers,
scatters, loops and collectives carry none, and GPU programs carry none at all.
"""

import dataclasses
import re

import numpy as np

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(([^)]*)\)(.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start|-done)?"
)
# What the program reads its inputs by: `step.take`, and its networks' `lower`.
_INPUT = re.compile(r"/take/|\.lower/")
_BLOCK = re.compile(r"/(block\d+)_conv")
# What moves or converts numbers and computes nothing, and what may stand beside it in a fusion.
_MOVES = {"copy", "copy-start", "transpose", "reverse", "convert"}
_BESIDE = {"fusion", "parameter", "bitcast", "reshape", "tuple", "get-tuple-element"}
_NOTABLE = 0.01  # the share of a step's cycles from which a move is listed


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
        name: Its name.
        shape: The arrays that it returns, as XLA writes them.
        op: The operation.
        operands: The names of the instructions that it reads.
        rest: Its attributes, as XLA writes them.
    """

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0

    @property
    def called(self) -> list[str]:
        """The names of the computations that it runs, but not those that it reduces with."""
        found = re.findall(r"(?:calls|body|branch_computations|to_apply)=\{?([^,}]+)", self.rest)
        return [] if self.op in ("reduce", "all-reduce") else [name.strip("% ") for name in found]

    @property
    def source(self) -> str:
        """What it was made of, in the program's own names."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def arrays(self) -> list[tuple[str, int, int]]:
        """The type, numbers and bytes of each array that it returns."""
        found = []
        for dtype, bits, shape in _ARRAY.findall(self.shape):
            numbers = int(np.prod([int(side) for side in shape.split(",") if side]))
            found.append((dtype, numbers, numbers * max(1, int(bits or 8) // 8)))
        return found


class Program:
    """A compiled program.

    Attributes:
        computations: The instructions of each, in the order in which they are run.
        entry: The name of the first.
        step: The name of the one that trains or judges a batch: the loop's body, if there is one.
    """

    def __init__(self, text: str):
        self.computations, self.entry = {}, ""
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                self.computations[head[2]] = lines = []
                self.entry = head[2] if head[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                operands = tuple(re.findall(r"%([\w.\-]+)", found[4]))
                lines.append(Instruction(found[1], found[2], found[3], operands, found[5]))
        loops = [re.search(r"body=%?([\w.\-]+)", x.rest)[1] for x in self._entry("while")]
        self.step = max([self.entry, *loops], key=lambda name: len(self.computations[name]))

    def _entry(self, op: str) -> list[Instruction]:
        return [one for one in self.computations[self.entry] if one.op == op]

    def inside(self, one: Instruction) -> list[Instruction]:
        """Returns an instruction and all that it runs."""
        called = [self.computations.get(name, []) for name in one.called]
        return [one, *(x for lines in called for own in lines for x in self.inside(own))]

    def cycles(self, one: Instruction) -> int:
        """Returns the cycles of an instruction, or of what it runs; of loops one round."""
        return one.cycles or sum(own.cycles for own in self.inside(one))

    def convolutions(self) -> dict[str, tuple[bool, bool]]:
        """Finds the network's convolutions; products of matrices are none.

        Returns:
            By their names, whether each reads float32, and whether it belongs to a head.
        """
        found = {}
        for lines in self.computations.values():
            types = {one.name: one.arrays[0][0] for one in lines if one.arrays}
            for one in lines:
                network = one.op == "convolution" and "conv_general_dilated" in one.source
                if network or "__cudnn$conv" in one.rest:
                    read = [types.get(name) for name in one.operands[:2]]
                    found[one.name] = "f32" in read, "/head/" in one.source
        return found

    def blocks(self) -> dict[str, dict[str, int]]:
        """Adds up the cycles of a step by the blocks of VGG16.

        Returns:
            For each block those of its convolutions, `forward` and of `gradients`, and of what else
            belongs to it, `rest`: maxima, biases and what moves them.
        """
        found, convolutions = {}, self.convolutions()
        for one in self.computations[self.step]:
            products = [x for x in self.inside(one) if x.name in convolutions]
            source = (products or [one])[0].source
            if block := _BLOCK.search(source):
                part = "gradients" if "transpose(" in source else "forward"
                parts = found.setdefault(block[1], {"forward": 0, "gradients": 0, "rest": 0})
                parts[part if products else "rest"] += self.cycles(one)
        return dict(sorted(found.items()))

    def collectives(self) -> list[dict]:
        """Lists what the devices exchange, in the order of the program.

        Returns:
            For each collective operation its name, the numbers and bytes that it returns, and
            whether it overlaps: others are computed between its start and its end.
        """
        found, started = [], {}
        for lines in self.computations.values():
            for place, one in enumerate(lines):
                kind = _COLLECTIVE.fullmatch(one.op)
                if kind and kind[2] == "-start":
                    started[one.name] = place
                elif kind:
                    between = lines[started.get(one.operands[0], place) + 1 : place]
                    found.append(
                        {
                            "name": kind[1],
                            "numbers": sum(numbers for _, numbers, _ in one.arrays),
                            "bytes": sum(size for _, _, size in one.arrays),
                            "overlaps": any(x.op in ("fusion", "convolution") for x in between),
                        }
                    )
        return found

    def report(self, steps: int) -> dict:
        """Summarises a dispatch of so many steps.

        Returns:
            The cycles of a step, with its share of what is done once a dispatch; those of
            convolutions, of what is done to inputs before the backbone, and of a dispatch's once;
            how many convolutions there are, and how many of them read float32, in the backbone and
            in the heads; `blocks`; the collectives; and all that moves numbers for 1 % of the
            cycles.
        """
        step, once = self.computations[self.step], []
        if self.step != self.entry:
            once = [one for one in self.computations[self.entry] if one.op != "while"]
        convolutions, apart = self.convolutions(), sum(map(self.cycles, once))
        total = sum(map(self.cycles, step)) + apart / steps
        convolving = [x for x in step if any(y.name in convolutions for y in self.inside(x))]
        inputs = [x for x in step if _INPUT.search(x.source) and x not in convolving]
        moves = [
            {
                "op": one.op,
                "shape": one.shape.partition("{")[0].strip("("),
                "of": one.source.rpartition("jit(_fun)/")[2],
                "share": self.cycles(one) / times / total,
            }
            for lines, times in ((step, 1), (once, steps))
            for one in lines
            if self.cycles(one) > _NOTABLE * total * times
            if _is_a_move({x.op for x in self.inside(one)})
        ]
        float32 = [head for reads, head in convolutions.values() if reads]
        return {
            "cycles": total,
            "cycles of convolutions": sum(map(self.cycles, convolving)),
            "cycles of inputs": sum(map(self.cycles, inputs)) + apart / steps,
            "cycles once a dispatch": apart,
            "convolutions": len(convolutions),
            "float32 convolutions": {"backbone": float32.count(False), "heads": sum(float32)},
            "blocks": self.blocks(),
            "collectives": self.collectives(),
            "moves": sorted(moves, key=lambda move: -move["share"]),
        }


def _is_a_move(ops: set[str]) -> bool:
    return bool(ops & _MOVES) and ops <= _MOVES | _BESIDE
