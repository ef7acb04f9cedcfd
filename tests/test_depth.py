import dataclasses

import pytest
import torch
from torch import Tensor

from model.depth import DepthConfig, DepthTransformer

CONFIG = DepthConfig(
    input_dim=12, dim=16, layers=2, heads=4, hidden=24, steps=5, codebook=11, text_vocabulary=7
)


def built(config: DepthConfig = CONFIG, frames: int = 3) -> tuple[DepthTransformer, Tensor, Tensor]:
    torch.manual_seed(0)
    module = DepthTransformer(config).eval()
    context = torch.randn(frames, config.input_dim)
    return module, context, torch.randint(7, (frames,))


def likeliest(logits: Tensor, step: int) -> Tensor:
    return logits.argmax(-1)


@pytest.mark.parametrize("vocabulary", [0, 7])
@pytest.mark.parametrize("steps", [1, 5])
def test_forward_equals_generation(steps: int, vocabulary: int) -> None:
    config = dataclasses.replace(CONFIG, steps=steps, text_vocabulary=vocabulary)
    module, context, text = built(config)
    text = text if vocabulary else None
    seen: list[Tensor] = []

    def sample(logits: Tensor, step: int) -> Tensor:
        assert step == len(seen)
        seen.append(logits)
        return logits.argmin(-1)  # the likeliest code may be the one that came in

    codes = module.generate(context, sample, text)
    assert codes.dtype == torch.int64
    logits = module(context, codes, text)
    assert logits.dtype == torch.float32
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, torch.stack(seen, dim=1), atol=1e-5, rtol=1e-5)


def test_a_code_depends_on_those_before_it_alone() -> None:
    module, context, text = built()
    codes = torch.randint(CONFIG.codebook, (3, CONFIG.steps))
    changed = codes.clone()
    changed[:, 2] = CONFIG.codebook  # "no code" is a code as well
    before, after = module(context, codes, text), module(context, changed, text)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax((0, 2)).min() > 1e-3


def test_text_and_context_reach_every_code() -> None:
    module, context, text = built()
    codes = torch.randint(CONFIG.codebook, (3, CONFIG.steps))
    before = module(context, codes, text)
    for after in (module(context, codes, (text + 1) % 7), module(context + 1, codes, text)):
        assert (before - after).abs().amax((0, 2)).min() > 1e-4


def test_row_in_batch_equals_row_alone() -> None:
    module, context, text = built(frames=4)
    together = module.generate(context, likeliest, text)
    logits = module(context, together, text)
    for row in range(4):
        one = slice(row, row + 1)
        assert torch.equal(module.generate(context[one], likeliest, text[one]), together[one])
        alone = module(context[one], together[one], text[one])
        torch.testing.assert_close(alone, logits[one], atol=1e-5, rtol=1e-5)


def test_steps_that_nobody_asks_for_never_run() -> None:
    module, context, text = built()
    whole = module.generate(context, likeliest, text)
    with torch.no_grad():
        module.heads[2:] = torch.nan
        module.input[2:] = torch.nan
    calls: list[int] = []

    def sample(logits: Tensor, step: int) -> Tensor:
        calls.append(step)
        return likeliest(logits, step)

    assert torch.equal(module.generate(context, sample, text, steps=2), whole[:, :2])
    assert calls == [0, 1]


def test_every_weight_trains() -> None:
    module, context, text = built(frames=64)
    codes = torch.randint(CONFIG.codebook, (64, CONFIG.steps))
    logits = module(context, codes, text)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_text_is_asked_for() -> None:
    module, context, _ = built()
    with pytest.raises(ValueError, match="text is missing"):
        module.generate(context, likeliest)


def test_configuration_is_checked() -> None:
    with pytest.raises(AssertionError, match="dim 16 must be a multiple of heads 3"):
        dataclasses.replace(CONFIG, heads=3)
    with pytest.raises(AssertionError, match="steps 0 must be positive"):
        dataclasses.replace(CONFIG, steps=0)
