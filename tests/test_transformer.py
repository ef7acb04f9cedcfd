"""The temporal transformer: its law with pinned steps, packing, and what it sees hours later."""

import pytest
import torch
from torch import Tensor

from model.attention import AttentionConfig, packing_of
from model.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(dim=32, layers=2, heads=4, kv_heads=2, hidden=48, window=7, pinned=3)


def transformer(config: TransformerConfig = SMALL) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config).eval().requires_grad_(False)


def steps_of(module: Transformer, x: Tensor, sizes: list[int]) -> Tensor:
    state = module.init_state(len(x))
    return torch.cat([module(part, state) for part in x.split(sizes, dim=1)], dim=1)


@pytest.mark.parametrize("sizes", [[1] * 40, [5] * 8, [2, 1, 20, 17], [40]])
@pytest.mark.parametrize("pinned", [0, 3, 12])
def test_chunked_equals_whole(sizes: list[int], pinned: int) -> None:
    module = transformer(TransformerConfig(32, 2, 4, 2, 48, window=7, pinned=pinned))
    x = torch.randn(2, 40, 32)
    torch.testing.assert_close(steps_of(module, x, sizes), module(x), atol=1e-5, rtol=1e-5)


def test_a_row_of_a_batch_goes_at_its_own_pace() -> None:
    module, x = transformer(), torch.randn(3, 30, 32)
    state, taken = module.init_state(3), [0, 0, 0]
    outputs: list[list[Tensor]] = [[], [], []]
    for tick in range(60):
        active = torch.tensor([True, tick % 2 == 0, tick % 3 == 0])
        active &= torch.tensor(taken) < 30
        now = torch.stack([x[row, min(taken[row], 29)] for row in range(3)])
        y = module(now[:, None], state, active)[:, 0]
        for row in active.nonzero()[:, 0].tolist():
            outputs[row].append(y[row])
            taken[row] += 1
    assert taken == [30, 30, 20]
    for row, output in enumerate(outputs):
        alone = module(x[row : row + 1, : taken[row]])[0]
        torch.testing.assert_close(torch.stack(output), alone, atol=1e-5, rtol=1e-5)


def test_packed_sequences_do_not_see_each_other() -> None:
    module, x = transformer(), torch.randn(1, 45, 32)
    segment = torch.tensor([[1] * 20 + [2] * 22 + [0] * 3])
    packed = module(x, segment=segment)
    for part in (slice(0, 20), slice(20, 42)):
        alone = module(x[:, part])
        torch.testing.assert_close(packed[:, part], alone, atol=1e-5, rtol=1e-5)


def test_a_pinned_step_is_seen_and_others_are_forgotten() -> None:
    config = AttentionConfig(16, 2, 1, window=4, pinned=2)
    visible = packing_of(torch.ones(1, 12, dtype=torch.int64), config).visible[0]
    assert visible[11].nonzero()[:, 0].tolist() == [0, 1, 8, 9, 10, 11]
    assert visible[5].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert visible[1].nonzero()[:, 0].tolist() == [0, 1]


def test_ten_thousand_steps_later_nothing_has_grown_or_drifted() -> None:
    """The state is the same tensors, and what comes out is what a prompt and the newest give."""
    config = TransformerConfig(16, 1, 2, 1, 24, window=6, pinned=2)
    module, x = transformer(config), torch.randn(1, 10_000, 16)
    state = module.init_state(1)
    storage = [tensor.data_ptr() for tensor in state.tensors()]
    late = torch.cat([module(x[:, step : step + 1], state) for step in range(10_000)], dim=1)
    assert [tensor.data_ptr() for tensor in state.tensors()] == storage
    # One layer: it sees the pinned steps and its window, at the distances of a short sequence.
    short = module(torch.cat([x[:, :2], x[:, -6:]], dim=1))
    torch.testing.assert_close(late[:, -1], short[:, -1], atol=1e-4, rtol=1e-4)


def test_activations_computed_anew_give_the_same_gradient() -> None:
    gradients = []
    for is_checkpointed in (False, True):
        module = transformer().train().requires_grad_(True)
        module.checkpoint_activations = is_checkpointed
        torch.manual_seed(1)
        module(torch.randn(2, 9, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers 0"),
        ({"kv_heads": 3}, "multiple of kv_heads 3"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"pinned": -1}, "pinned -1"),
    ],
)
def test_a_wrong_size_is_named(change: dict, message: str) -> None:
    sizes = {"dim": 32, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "window": 7}
    with pytest.raises(AssertionError, match=message):
        Transformer(TransformerConfig(**sizes | change))
