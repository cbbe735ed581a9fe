import numpy as np

from convlora.analysis.usage import usage_history

LINES = [
    {"step": 3, "usage": {"layers.0.attn.qkv": [3.0, 1.0], "layers.1.attn.qkv": [0.0, 2.0]}},
    {"step": 5, "usage": {"layers.0.attn.qkv": [1.0, 1.0], "layers.1.attn.qkv": [1.0, 0.0]}},
]


def test_shares_of_each_line_and_layer_sum_to_one():
    history = usage_history(LINES)
    assert history.layers == ["layers.0.attn.qkv", "layers.1.attn.qkv"] and history.steps.tolist() == [3, 5]
    np.testing.assert_array_equal(history.shares, [[[0.75, 0.25], [0, 1]], [[0.5, 0.5], [1, 0]]])
    assert history.as_json((1, 4)) == {
        "scales": [1, 4],
        "steps": [3, 5],
        "shares": {"layers.0.attn.qkv": [[0.75, 0.25], [0.5, 0.5]], "layers.1.attn.qkv": [[0.0, 1.0], [1.0, 0.0]]},
    }


def test_a_run_without_lines_has_no_history():
    assert usage_history([]) is None
