"""Make the small models beside this file: one good one, and one for each fault that a file can have.

They are committed, so that the tests need no `onnx` package. To make them again:
`uv run --extra train python tests/data/models/make_models.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent
FLOAT = TensorProto.FLOAT
WIDTH = 2

Shape = list[int | str]


def tensor(name: str, shape: Shape, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weights(name: str = "weights", values: Any = ((0.5,), (-0.25,))) -> Any:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def outside(made: Any, location: str) -> Any:
    """The same tensor, its numbers in the file `location`."""
    made.data_location = TensorProto.EXTERNAL
    made.ClearField("raw_data")
    entry = made.external_data.add()
    entry.key, entry.value = "location", location
    return made


LINEAR = (
    helper.make_node("MatMul", ["inputs", "weights"], ["log_odds"]),
    helper.make_node("Sigmoid", ["log_odds"], ["probabilities"]),
)


def save(
    name: str,
    nodes: Any = LINEAR,
    *,
    inputs: Any = None,
    outputs: Any = None,
    initializers: Any = None,
    **more: Any,
) -> None:
    """Write a model of `nodes`; what is left out is as in the good one."""
    graph = helper.make_graph(
        list(nodes),
        name,
        inputs or [tensor("inputs", ["rows", WIDTH])],
        outputs or [tensor("probabilities", ["rows", 1])],
        [weights()] if initializers is None else initializers,
        sparse_initializer=more.pop("sparse", None),
    )
    opsets = {"": 17} | {node.domain: 1 for node in nodes if node.domain}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=8,
        **more,
    )
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def one_node(operator: str, *sources: str, to: str = "probabilities", **attributes: Any) -> Any:
    return helper.make_node(operator, list(sources), [to], **attributes)


def main() -> None:
    save("linear")
    save(
        "as_told",
        [
            one_node("Less", "inputs", "no", to="below"),
            one_node("Where", "below", "no", "inputs", to="raised"),
            one_node("Greater", "raised", "yes", to="above"),
            one_node("Where", "above", "yes", "raised"),
        ],
        inputs=[tensor("inputs", ["rows", 1])],
        initializers=[weights("no", 0.0), weights("yes", 1.0)],
    )
    save("external_initializer", initializers=[outside(weights(), "weights.bin")])
    save("external_elsewhere", initializers=[outside(weights(), "../../../weights.bin")])
    constant = one_node("Constant", to="weights", value=outside(weights(), "weights.bin"))
    save("external_constant", [constant, *LINEAR], initializers=[])
    sparse = helper.make_sparse_tensor(
        outside(weights(values=[0.5]), "weights.bin"),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "places"),
        [WIDTH, 1],
    )
    save("external_sparse", initializers=[], sparse=[sparse])

    save("custom_operator", [one_node("Oracle", "inputs", domain="com.example")])
    save("vendor_operator", [one_node("Gelu", "inputs", domain="com.microsoft")])
    function = helper.make_function(
        "ai.onnx.ml", "Score", ["x"], ["y"], [one_node("Sigmoid", "x", to="y")], [helper.make_opsetid("", 17)]
    )
    save(
        "own_function",
        [one_node("Score", "inputs", domain="ai.onnx.ml")],
        functions=[function],
    )
    branch = helper.make_graph(
        [one_node("Sigmoid", "log_odds", to="branch")], "branch", [], [tensor("branch", ["rows", 1])]
    )
    yes = one_node("Constant", to="yes", value=numpy_helper.from_array(np.array(True), "yes"))
    save("branches", [LINEAR[0], yes, one_node("If", "yes", then_branch=branch, else_branch=branch)])

    save(
        "double_input",
        inputs=[tensor("inputs", ["rows", WIDTH], TensorProto.DOUBLE)],
        initializers=[numpy_helper.from_array(np.array([[0.5], [0.1]]), "weights")],
        outputs=[tensor("probabilities", ["rows", 1], TensorProto.DOUBLE)],
    )
    save("any_width", inputs=[tensor("inputs", ["rows", "columns"])])
    save("one_row", inputs=[tensor("inputs", [1, WIDTH])], outputs=[tensor("probabilities", [1, 1])])
    save(
        "flat_input",
        [one_node("Sigmoid", "inputs")],
        inputs=[tensor("inputs", ["rows"])],
        outputs=[tensor("probabilities", ["rows"])],
        initializers=[],
    )
    save(
        "two_inputs",
        [one_node("Add", "inputs", "more", to="sum"), one_node("Sigmoid", "sum")],
        inputs=[tensor("inputs", ["rows", 1]), tensor("more", ["rows", 1])],
        initializers=[],
    )

    save(
        "wrong_output",
        [LINEAR[0], one_node("Sigmoid", "log_odds", to="score")],
        outputs=[tensor("score", ["rows", 1])],
    )
    save(
        "three_columns",
        [LINEAR[0], one_node("Softmax", "log_odds")],
        initializers=[weights(values=[[0.1, 0.2, 0.3]] * WIDTH)],
        outputs=[tensor("probabilities", ["rows", 3])],
    )
    whole = helper.make_node("Cast", ["log_odds"], ["probabilities"], to=TensorProto.INT64)
    save(
        "integer_output",
        [LINEAR[0], whole],
        outputs=[tensor("probabilities", ["rows", 1], TensorProto.INT64)],
    )
    zipped = helper.make_node(
        "ZipMap", ["inputs"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    pairs = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    mapped = helper.make_value_info("probabilities", helper.make_sequence_type_proto(pairs))
    save("zipmap", [zipped], outputs=[mapped], initializers=[])
    save(
        "not_a_probability",
        [helper.make_node("MatMul", ["inputs", "weights"], ["probabilities"])],
        initializers=[weights(values=[[1.0], [1.0]])],
    )
    save(
        "always_nan",
        [LINEAR[0], one_node("Sub", "log_odds", "log_odds", to="zero"), one_node("Div", "zero", "zero")],
    )
    save("by_neighbours", [LINEAR[0], one_node("Softmax", "log_odds", axis=0)])
    save("by_chance", [LINEAR[0], one_node("RandomUniformLike", "log_odds")])


if __name__ == "__main__":
    main()
