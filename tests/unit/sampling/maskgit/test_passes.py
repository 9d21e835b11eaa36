"""The padded way gives what the grouped way gives, with few operations, and can be compiled."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from benchmarks.showo_launches import Operations, operations
from genloop.models.common.memory import Budget
from genloop.records import Seed
from genloop.sampling.maskgit.passes import Grouped, Padded, passes_of
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState
from tests.worlds.tiny_showo import PROMPTS, pixels_of, random_codes, tiny_showo

SETTINGS = SamplingConfig(steps=4)


def sampler_of(slots: int = 12, rows_per_forward: int = 256, **changes) -> MaskGitSampler:
    model, settings = tiny_showo(), SETTINGS.model_copy(update=changes)
    return MaskGitSampler(model, pixels_of(model), settings, slots=slots, rows_per_forward=rows_per_forward)


def start(sampler: MaskGitSampler, rows: int = 12) -> MaskGitState:
    """Texts of five lengths, several rows each."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    return sampler.start(prompts, [Seed(0, prompt.index, 0, row) for row, prompt in enumerate(prompts)])


def walk(sampler: MaskGitSampler, state: MaskGitState) -> MaskGitState:
    while state.steps[0] < state.lengths[0]:
        state = sampler.step(state)
    return state


def hidden_of(sampler: MaskGitSampler, tokens: Tensor, state: MaskGitState) -> Tensor:
    """Of masked tokens, without and with the text."""
    hidden, where = sampler._passes.run(tokens, [*state.prefixes, *[sampler._unconditional] * len(tokens)])
    return sampler._logits(hidden[where][(tokens == sampler.mask_code).repeat(2, 1)])


def corrected(sampler: MaskGitSampler) -> MaskGitState:
    """Rows whose prefixes differ in position too, beside plain ones."""
    done = walk(sampler, start(sampler, 6))
    again = sampler.correct(done, PROMPTS, ["too red", "a", "b", "too blue", "small", "no"])
    return sampler.join([again, start(sampler, 6)])


@pytest.mark.parametrize("begin", [start, corrected])
@pytest.mark.parametrize("rows_per_forward", [256, 5])
def test_padded_rows_have_the_logits_of_grouped_ones(begin, rows_per_forward):
    grouped, padded = (sampler_of(rows_per_forward=rows_per_forward, padded=how) for how in (False, True))
    state = begin(grouped)
    tokens = random_codes(grouped.model, len(state)).masked_fill(torch.arange(16) % 3 > 0, grouped.mask_code)
    start(padded)  # knows its weights
    expected = hidden_of(grouped, tokens, state)
    torch.testing.assert_close(hidden_of(padded, tokens, state), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        padded.confidence(replace(state, guess=tokens % 24)), grouped.confidence(replace(state, guess=tokens % 24))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance_scale": 0.0},
        {"preview": "argmax", "order": "object_first"},
        {"temperature_mode": "reference", "schedule": "linear", "stop_after": 3},
        {"compile": "eager"},
        {"compile": "aot_eager"},
    ],
    ids=str,
)
def test_padded_rows_draw_the_tokens_of_grouped_ones(changes):
    grouped = sampler_of(**{key: value for key, value in changes.items() if key != "compile"})
    padded = sampler_of(**changes, padded=True)
    expected, found = (walk(sampler, start(sampler)) for sampler in (grouped, padded))
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.revealed_at, expected.revealed_at)
    assert torch.equal(found.guess, expected.guess)


def test_known_tokens_stay_when_all_logits_are_computed():
    padded = sampler_of(padded=True)
    known = random_codes(padded.model, 6)
    known[:, 3:9] = padded.mask_code
    found = walk(padded, padded.start(PROMPTS, [Seed(0, p.index, 0, 0) for p in PROMPTS], known))
    assert torch.equal(found.tokens[:, 9:], known[:, 9:]) and (found.tokens < padded.mask_code).all()


@pytest.mark.parametrize("padded", [True, False])
def test_rows_that_do_not_fit_are_run_in_smaller_passes(padded, monkeypatch):
    sampler, sizes = sampler_of(padded=padded), []
    expected = walk(sampler, start(sampler))
    rotary = sampler.model.showo.model.rotary_emb
    forward = rotary.forward

    def tight(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(position_ids))
        if len(position_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x, position_ids=position_ids)

    begun = start(sampler)
    monkeypatch.setattr(rotary, "forward", tight)
    found = walk(sampler, begun)
    assert torch.equal(found.tokens, expected.tokens)
    assert sampler._passes.budget.limit <= 3 and max(sizes[8:]) <= 3


def test_a_gpu_pads_and_a_cpu_groups_unless_it_is_told_to():
    model = tiny_showo()
    assert [SETTINGS.is_padded(device) for device in ("cpu", "cuda")] == [False, True]
    for settings, way in (
        (SETTINGS, Grouped),
        (SamplingConfig(padded=True), Padded),
        (SamplingConfig(compile="eager"), Padded),
    ):
        assert type(passes_of(model, settings, rows_per_forward=8, slots=4)) is way
    with pytest.raises(ValueError, match="padded=false"):
        SamplingConfig(padded=False, compile="eager")


def test_one_shape_is_compiled_however_many_rows_there_are():
    shapes = set()

    def backend(graph, inputs):
        shapes.add(tuple(tuple(one.shape) for one in inputs if isinstance(one, Tensor) and one.dtype == torch.int64))
        return graph.forward

    torch._dynamo.reset()
    model = tiny_showo()
    sampler = sampler_of(slots=6, padded=True)
    sampler._passes = Padded(model, Budget(256, "rows"), rows=12)
    sampler._passes._multiple, sampler._passes._hidden = 12, torch.compile(sampler._passes._hidden, backend=backend)
    state = start(sampler, 6)
    for rows in (6, 5, 2):
        sampler.step(state.select(range(rows)))
    assert len(shapes) == 1


def test_a_padded_step_takes_few_operations_and_waits_for_no_value():
    """Fake tensors have shapes alone: whatever the host has to know of a value fails."""
    counts = {}
    for padded in (True, False):
        sampler = sampler_of(padded=padded)
        counts[padded] = operations(sampler, 12, 1)
    assert counts[True].waits == 0 < counts[False].waits
    assert counts[True].counts.total() * 1.5 < counts[False].counts.total()
    sampler = sampler_of(padded=True)
    state = start(sampler)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert sampler.step(state).tokens.shape == (12, 16)
    grouped = sampler_of(padded=False)
    begun = start(grouped)
    with pytest.raises(DynamicOutputShapeException), FakeTensorMode(allow_non_fake_inputs=True):
        grouped.step(begun)


def test_looking_for_changed_weights_takes_few_operations():
    sampler = sampler_of(padded=True)
    start(sampler, 1)
    with Operations() as found:
        start(sampler, 1)
    assert found.counts.total() < 20 < len(list(sampler.model.parameters()))
