"""Builds ONNX Runtime's file and changes a bias of its last layer."""

from hotlap.perf.backends import onnxruntime
from hotlap.perf.backends.onnxruntime import (  # noqa: F401
    LOCATES,
    available,
    load,
    placement,
    supports,
    variables,
)

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("onnxruntime",)


def build(workload, case, folder, phase):
    import onnx

    onnxruntime.build(workload, case, folder, phase)
    file = folder / onnxruntime.MODEL
    model = onnx.load(file)
    file.unlink()  # it may be a hard link to the export that other cases share
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == model.graph.node[-1].input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(1 + onnx.numpy_helper.to_array(bias), bias.name))
    onnx.save(model, file)
