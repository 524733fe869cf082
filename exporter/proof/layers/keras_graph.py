"""The tensors of a Keras model, layer by layer, under their names in the model. Runs in a TensorFlow process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ....core import samples
from .record import Node, Recorder

MOVES = {
    "Reshape", "Permute", "Flatten", "Concatenate", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "Identity",
    "RepeatVector", "Cropping1D", "Cropping2D", "Transpose", "ExpandDims", "Squeeze", "GetItem", "Cast",
}  # fmt: skip


def tap(model: str, inputs: str, out: str, names: list[str], layouts: bool = False) -> dict[str, Any]:
    """Run a Program's ``model.keras`` on the samples of a file and keep what every layer answers.

    `names` are the Program's inputs; the model knows its own.
    """
    import keras

    from ...sources import keras_model

    keras_model.prepare()
    ends, edge = keras_model.reopen(model)
    order = [spec.name for spec in ends.inputs]
    recorder: Recorder | None = None
    for feed in samples.load(inputs):
        given = edge.inside(feed)
        tensors = {name: keras.ops.convert_to_tensor(given[name]) for name in order}
        calls = _Calls(list(tensors.values()), order)
        with calls.listening():
            answers = ends.call(tensors)
        for tensor in answers.values():
            calls.nodes[calls.index[id(tensor)]].is_output = True
        recorder = recorder or Recorder(calls.nodes, layouts)
        recorder.sample()
        for index, tensor in enumerate(calls.tensors):
            recorder.add(index, keras.ops.convert_to_numpy(tensor))
    assert recorder
    return recorder.save(out)


@dataclass
class _Calls:
    """What one run called, as nodes; a tensor is known by its identity, so all are kept alive."""

    tensors: list[Any]
    names: Sequence[str]
    nodes: list[Node] = field(default_factory=list)
    index: dict[int, int] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = [Node(name, "", "input", is_input=True) for name in self.names]
        self.tensors = list(self.tensors)
        self.index = {id(tensor): i for i, tensor in enumerate(self.tensors)}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this holds, every layer and operation of Keras is noted."""
        # Layers and operations both end here, with the tensors that they really compute with.
        from keras.src.ops.operation import Operation

        original = Operation.__call__

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            self.path.append(str(operation.name))
            first = len(self.nodes)
            answer = original(operation, *args, **kwargs)
            self._note(operation, first, (args, kwargs), answer)
            self.path.pop()
            return answer

        Operation.__call__ = call
        try:
            yield
        finally:
            Operation.__call__ = original

    def _note(self, operation: Any, first: int, given: Any, answer: Any) -> None:
        """A node for each tensor that no inner call gave already."""
        import keras

        inputs = {self.index[id(t)] for t in keras.tree.flatten(given) if id(t) in self.index}
        consumed = {i for node in self.nodes[first:] for i in node.inputs}
        inputs |= {i for i in range(first, len(self.nodes)) if i not in consumed}
        # Plain TensorFlow between two layers leaves no trace: what ran last is the best guess.
        inputs = inputs or {len(self.nodes) - 1}
        kind = type(operation).__name__
        for tensor in keras.tree.flatten(answer):
            if keras.ops.is_tensor(tensor) and id(tensor) not in self.index:
                self.index[id(tensor)] = len(self.nodes)
                # The outermost is the model itself.
                path = "/".join(self.path[1:]) or self.path[0]
                name = f"{path}:{len(self.nodes)}"
                self.nodes.append(Node(name, path, kind, kind, sorted(inputs), moves=kind in MOVES))
                self.tensors.append(tensor)
