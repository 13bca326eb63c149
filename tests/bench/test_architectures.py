"""docs/models/architecture.md says what the networks are; counts are those of the formulas."""

from __future__ import annotations

from bench import architectures
from hotlap.models.nets.gpt import GPT


def test_the_page_is_what_the_networks_are() -> None:
    text = architectures.PAGE.read_text()
    assert architectures.in_page(text) == text
    assert text.count("### ") == len(architectures.names())
    # Where a network changes, the page is another.
    assert architectures.in_page(text.replace("885,888", "885,889")) == text


def test_flops_are_those_of_the_formulas() -> None:
    flops, shapes, *_ = architectures.counted(architectures.built("mlp", ""))
    assert flops[""] == 2 * (30 * 64 + 64 * 64 + 64 * 2)
    net = architectures.built("gpt", "")
    assert isinstance(net, GPT)
    flops, shapes, *_ = architectures.counted(net)
    tokens, width, hidden = 128, 128, 384
    products = tokens * (3 * width * width + width * width + 3 * width * hidden)
    attention = 2 * tokens * tokens * width
    assert flops["blocks.0"] == 2 * (products + attention)
    assert shapes["blocks.0"] == (1, tokens, width) and architectures.parameters(net) == 885_888
