"""What an operator is for, whatever runs it: torch, Inductor's kernels, ONNX Runtime, OpenVINO and
TensorRT have other names for the same work.
"""

from __future__ import annotations

import re

# What is no work on data, and what no pattern knows.
FRAMEWORK = "framework and Python"
OTHER = "other"
# The first that a name contains; names are compared without case. Fused operators are named after
# their largest part.
KINDS = (
    (
        FRAMEWORK,
        (
            r"^python between operators|dynamo|torch-compiled"
            r" region|bytecode|aotdispatcher|autograd::|::empty|as_strided|detach|backward\d+$"
        ),
    ),
    ("data loading", r"dataloader"),
    (
        "communication",
        r"nccl|rccl|all_?reduce|all_?gather|reduce_scatter|all_?to_?all|broadcast_coalesced|c10d::",
    ),
    ("attention", r"attention|sdpa|flash|fmha|\bmha\b"),
    ("convolution", r"conv(?!ert)"),
    (
        "matrix product",
        r"(?:^|::|_)(?:add)?(?:b)?mm(?:$|_|\b)|baddbmm|linear|gemm|matmul|fullyconnected|einsum|cublas|inner_?product",
    ),
    ("normalization", r"norm|\bmvn\b"),
    ("softmax", r"softmax"),
    ("pooling", r"pool"),
    ("optimizer", r"optimizer|_foreach_|_fused_adam|adamw?\b|sgd\b"),
    ("embedding and indexing", r"embedding|gather|scatter|index|slice|select|take|nonzero|onehot"),
    (
        "layout and copies",
        r"copy|reformat|reorder|transpose|permute|contiguous|concat|(?:::|^)cat\b|split|reshape|flatten|squeeze|expand|view|::t\b|clone|::to\b|cast"
        r"|convert|memcpy|memset|pad\b|stack|identity|shuffle|quantize|no_?op\b",
    ),
    (
        "reduction",
        r"(?:::|^|reduce)(?:sum|mean|amax|amin|argmax|topk|max\b|min\b)|reducemean|reducesum|\btopk\b|triton_red|triton_per",
    ),
    ("fused kernel", r"triton_|compiledfxgraph|subgraph|snippets|fused|graph_\d+|cpp_"),
    (
        "elementwise",
        r"gelu|relu|sigmoid|tanh|silu|swish|erf|\badd|(?:sub|mul|div|exp|neg|abs|eq|ne|lt|gt|le|ge|cos|sin|log\d*|all|any)_?\b|pow|sqrt|eltwise|elementwise|pointwise"
        r"|activation|clamp|where|dropout|fill|zero_|threshold|swiglu|pwgen|scale|arange",
    ),
)
PATTERNS = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in KINDS)


def of(name: str) -> str:
    """Returns one of KINDS, or other, by an operator's name; after ` on ` stands where it ran."""
    what = name.partition(" on ")[0]
    return next((kind for kind, pattern in PATTERNS if pattern.search(what)), OTHER)
