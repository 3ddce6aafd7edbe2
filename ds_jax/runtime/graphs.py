"""Writes ONNX graphs by arithmetic: each operation on a value of a graph adds a node to it.

Some functions have the names that they have in `numpy`, so that code which takes `numpy` or
`jax.numpy` as an argument also takes this module.
"""

import functools
import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper, numpy_helper

# ONNX Runtime reads these, in the versions of the tests (1.20 and later) and before; a later opset
# adds nothing.
OPSET, IR_VERSION = 13, 7

inf, uint8 = np.inf, np.uint8
# The type of what these operations return; others return the type of their first input.
_RESULTS = {"Shape": np.int64, "ArgMax": np.int64, "Less": np.bool_, "GreaterOrEqual": np.bool_}
Operand = Any  # a Value, or what NumPy makes an array of


class Graph:
    """A graph under construction."""

    def __init__(self):
        self._nodes, self._constants, self._inputs, self._outputs = [], [], [], []
        self._shared = {}

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> "Value":
        """Adds an input; a name in its shape stands for any size."""
        self._inputs.append(_describe(name, dtype, shape))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: "Value", shape: Sequence[int | str]) -> None:
        """Makes a value an output."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(_describe(name, value.dtype, shape))

    def constant(self, array: Operand, dtype: DTypeLike | None = None) -> "Value":
        """Adds a constant; whole numbers are int64 and others float32 unless `dtype` says more.

        Equal ones are stored once.
        """
        array = np.asarray(array, dtype)
        key = array.dtype, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._shared:
            name = f"constant_{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(array, name))
            self._shared[key] = Value(self, name, array.dtype)
        return self._shared[key]

    def add(self, kind: str, inputs: Sequence[Operand], count: int, attributes: Mapping) -> list:
        """Adds a node of an operation, and returns its `count` outputs."""
        inputs = [x if isinstance(x, Value) else self.constant(x) for x in inputs]
        names = [f"{kind}_{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(
            helper.make_node(kind, [value.name for value in inputs], names, **attributes)
        )
        dtype = _RESULTS.get(kind, inputs[kind == "Where"].dtype)
        if kind == "Cast":
            dtype = helper.tensor_dtype_to_np_dtype(attributes["to"])
        return [Value(self, name, dtype) for name in names]

    def serialize(self, name: str, version: str, metadata: Mapping[str, str]) -> bytes:
        """Returns the content of an ONNX file, which has a name, this program's version and more.

        Raises:
            ValueError: The file would be larger than the 2 GiB that the format can hold.
        """
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="ds_jax",
            producer_version=version,
        )
        helper.set_model_props(model, dict(metadata))
        return model.SerializeToString(deterministic=True)


class Value:
    """A tensor of a graph, by its name; in arithmetic the other operand takes its type.

    Attributes:
        graph: The graph.
        name: Its name there.
        dtype: The NumPy type of its numbers.
    """

    __array_ufunc__ = None  # an array of NumPy leaves arithmetic with a value to the value

    def __init__(self, graph: Graph, name: str, dtype: np.dtype):
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)

    def astype(self, dtype: DTypeLike) -> "Value":
        """Casts to a type; fractions are cut off where it is one of whole numbers."""
        return op("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def like(self, other: Operand) -> "Value":
        """Returns a value, or a constant of this value's type."""
        return other if isinstance(other, Value) else self.graph.constant(other, self.dtype)

    def _operator(kind: str, swapped: bool = False) -> Callable[["Value", Operand], "Value"]:
        def apply(self: "Value", other: Operand) -> "Value":
            other = self.like(other)
            return op(kind, other, self) if swapped else op(kind, self, other)

        return apply

    __add__, __radd__ = _operator("Add"), _operator("Add", swapped=True)
    __sub__, __rsub__ = _operator("Sub"), _operator("Sub", swapped=True)
    __mul__, __rmul__ = _operator("Mul"), _operator("Mul", swapped=True)
    __truediv__, __rtruediv__ = _operator("Div"), _operator("Div", swapped=True)
    __floordiv__ = _operator("Div")  # of whole numbers, none of which is negative
    __lt__, __gt__ = _operator("Less"), _operator("Less", swapped=True)
    __ge__ = _operator("GreaterOrEqual")


def op(kind: str, *inputs: Operand, **attributes: Any) -> Value:
    """Adds a node with one output, see <https://onnx.ai/onnx/operators>; one input is a value."""
    graph = next(x.graph for x in inputs if isinstance(x, Value))
    return graph.add(kind, inputs, 1, attributes)[0]


def split(x: Value, parts: int, axis: int) -> list[Value]:
    """Splits a value into equal parts."""
    return x.graph.add("Split", [x], parts, {"axis": axis})


def concatenate(values: Sequence[Operand], axis: int) -> Value:
    """Joins values along an axis."""
    return op("Concat", *values, axis=axis)


def size(x: Value, axis: int) -> Value:
    """Returns the size of an axis, int64 []."""
    return op("Gather", op("Shape", x), axis)


def shape(x: Value, *axes: int) -> Value:
    """Returns the sizes of some axes, int64 [axes]."""
    return op("Gather", op("Shape", x), list(axes))


def arange(stop: Value) -> Value:
    """Returns the whole numbers from 0 to one below `stop`, which is int64 []."""
    return op("Range", 0, stop, 1)


def expand(x: Value, *axes: int) -> Value:
    """Inserts axes of size 1."""
    return op("Unsqueeze", x, list(axes))


def maximum(x: Value, other: Operand) -> Value:
    """Returns the larger of each pair."""
    return op("Max", x, x.like(other))


def minimum(x: Value, other: Operand) -> Value:
    """Returns the smaller of each pair."""
    return op("Min", x, x.like(other))


def clip(x: Value, low: float, high: float) -> Value:
    """Limits a value to a range."""
    return op("Clip", x, x.like(low), x.like(high))


def log10(x: Value) -> Value:
    """Returns the decimal logarithm."""
    return op("Log", x) / np.log(10)


def where(condition: Value, x: Value, other: Operand) -> Value:
    """Returns `x` where the condition holds, and elsewhere `other`."""
    return op("Where", condition, x, x.like(other))


def total(x: Value, *axes: int, keep: bool = False) -> Value:
    """Returns the sum over axes."""
    return op("ReduceSum", x, list(axes), keepdims=int(keep))


def add(values: Iterable[Value]) -> Value:
    """Returns the sum of some values."""
    return functools.reduce(operator.add, values)


def reduce(kind: str, x: Value, *axes: int, keep: bool = False) -> Value:
    """Returns the "Max", "Min" or "Mean" over axes."""
    return op(f"Reduce{kind}", x, axes=list(axes), keepdims=int(keep))


def _describe(name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))
