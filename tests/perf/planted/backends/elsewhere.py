"""Asked for ONNX Runtime's CUDA provider where there is no device: the session quietly runs on the
CPU.
"""

from dataclasses import replace

from hotlap.perf.backends import onnxruntime
from hotlap.perf.backends.onnxruntime import available, build, load, supports, variables  # noqa: F401

SUMMARY, OPTIONS, PRELOAD = "planted defect", {}, ("onnxruntime",)


def placement(artefact, step):
    asked = replace(artefact.case, options=(("provider", "CUDAExecutionProvider"),))
    return onnxruntime.placement(replace(artefact, case=asked), step)
