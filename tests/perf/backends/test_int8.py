"""int8 by PT2E: what runs in 8 bits is counted by the operators that were really called."""

import numpy as np
import pytest

from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow


def cosine(ran, workload):
    a = ran.outputs[0].ravel()
    b = workload(ran.artefact.case).module(*workload(ran.artefact.case).inputs).numpy().ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.numeric
def test_convolution_and_linear_run_in_int8(run, workload):
    ran = run("conv/compile/int8/b2/cpu/inference")
    placement = ran.placement()
    assert ran.phases == ["calibrate", "compile"] and cosine(ran, workload) > 0.999
    assert (
        placement.wrong is None
        and placement.counters["nodes"] == 2
        and placement.counters["nodes_other_precision"] == 0
    )
    evidence = " ".join(placement.evidence)
    assert (
        "1 qconv_pointwise, 1 qlinear_pointwise" in evidence
        and "ranges from the example inputs and 4 random ones" in evidence
    )


@pytest.mark.numeric
@pytest.mark.parametrize("backend", ["compile", "onnxruntime", "openvino"])
def test_products_do_not_saturate(run, workload, backend):
    """On a CPU without VNNI, 8-bit activations times 8-bit weights are far off in all three."""
    ran = run(f"saturating/{backend}/int8/b4/cpu/inference")
    case = ran.artefact.case
    exact = workload(case).module(*workload(case).inputs).numpy()
    assert ran.placement().wrong is None
    assert np.abs(ran.outputs[0] - exact).max() < 0.05 * np.abs(exact).max()


def test_a_package_need_not_quantise_again(run, workload):
    """And what the quantiser leaves in fp32 is counted: a convolution in one dimension."""
    ran = run("signal/compile/int8/b2/cpu/inference[package:aoti]")
    placement = ran.placement()
    assert ran.phases == ["calibrate", "export", "compile"] and cosine(ran, workload) > 0.99
    assert (
        placement.wrong is None
        and placement.counters["nodes"] == 2
        and placement.counters["nodes_other_precision"] == 1
    )
    assert "int8: 1 of 2 linear and convolution layers" in " ".join(placement.evidence)


def test_nothing_in_int8_fell_back(run):
    wrong = run("specialised/compile/int8/b2/cpu/inference").placement().wrong
    assert wrong is not None and wrong.code in ("unsupported_precision", "unsupported_op")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "shared",
            (
                "export_failed: PT2E cannot quantise it: ValueError: Input partition has more than one output"
                " node"
            ),
        ),
        ("branching", "export_failed: "),
    ],
)
def test_what_pt2e_cannot_take_is_refused_in_one_line(run, name, why):
    with pytest.raises(Refusal, match=why) as caught:
        run(f"{name}/compile/int8/b2/cpu/inference")
    assert "\n" not in str(caught.value)
