"""Generated tokens equal the published code's, draw by draw, through the fast sampler and through the literal loop."""

import pytest
import torch

from genloop.sampling.maskgit.sampler import MaskGitSampler, lowest
from genloop.sampling.maskgit.schedule import choice_temperature, mask_ratio, masked_after
from genloop.sampling.noise import gumbel
from tests.goldens.roots import golden_name, golden_paths
from tests.goldens.showo_oracle import full_recompute
from tests.goldens.showo_sets import RecordedNoise, Run, ShowOSet, no_pixels, read_json, runs, sets_with

RUNS = runs()


def name_of(run: Run) -> str:
    return f"{golden_name(run.golden.folder)}-{run.name}"


@pytest.mark.parametrize("run", RUNS, ids=name_of)
def test_the_sampler_repeats_every_step_of_a_recorded_run(run: Run) -> None:
    golden, recorded = run.golden, run.arrays
    sampler = MaskGitSampler(golden.model, no_pixels(golden), run.settings, noise=RecordedNoise(run))
    state = sampler.start(run.prompts, run.seeds, run.start)
    for step in range(sampler.num_steps):
        state = sampler.step(state)
        assert torch.equal(state.guess, recorded["step_sampled"][:, step])
        if step < sampler.num_steps - 1:
            assert torch.equal(state.tokens, golden.codes(recorded["step_inputs_after"][:, step]))
    assert torch.equal(state.tokens, recorded["tokens"])
    assert state.revealed_at.min() >= 0
    if "known" in recorded:
        assert torch.equal(state.tokens[recorded["known"]], run.start[recorded["known"]])


@pytest.mark.parametrize("run", RUNS, ids=name_of)
def test_the_literal_loop_repeats_a_recorded_run(run: Run) -> None:
    texts = [prompt.text for prompt in run.prompts]
    tokens, sampled = full_recompute(run.golden.model, texts, run.start, run.settings, run.seeds, RecordedNoise(run))
    assert torch.equal(tokens, run.arrays["tokens"])
    assert torch.equal(torch.stack(sampled, dim=1), run.arrays["step_sampled"])


@pytest.mark.parametrize("golden", sets_with("random_topk.npz"), ids=lambda golden: golden_name(golden.folder))
def test_the_tokens_that_stay_masked_are_the_recorded_ones(golden: ShowOSet) -> None:
    recorded = golden.arrays("random_topk.npz")
    for case in read_json(golden.folder / "random_topk.json"):
        probs, counts, uniform, masking = (
            recorded[f"{name}{case['i']}"] for name in ("probs", "mask_len", "uniform", "masking")
        )
        keys = probs.clamp(min=1e-20).log() + case["temperature"] * gumbel(uniform)
        assert torch.equal(lowest(keys, counts[:, 0].long()), masking)


@pytest.mark.parametrize("path", golden_paths("showo/**/schedules.json"), ids=golden_name)
def test_schedules_equal_the_recorded_ones(path: object) -> None:
    for name, rows in read_json(path).items():
        if not isinstance(rows, list):
            continue
        schedule, num_steps, num_tokens = name.split("_")
        steps, tokens = int(num_steps.removeprefix("T")), int(num_tokens.removeprefix("N"))
        unknown = tokens
        for row in rows:
            assert unknown == row["unknown_before"]
            assert mask_ratio(schedule, (row["step"] + 1) / steps) == pytest.approx(row["mask_ratio"], abs=2e-7)
            unknown = max(1, min(unknown - 1, masked_after(schedule, row["step"], steps, tokens)))
            assert unknown == row["masked_after"]
            temperature = choice_temperature("cumulative", 1.0, row["step"], steps)
            assert temperature == pytest.approx(row["temperature"], abs=1e-12)


@pytest.mark.parametrize("path", golden_paths("showo/**/schedules.json"), ids=golden_name)
def test_schedule_values_equal_the_recorded_ones(path: object) -> None:
    grids = [rows for rows in read_json(path).values() if isinstance(rows, dict)]
    assert grids
    for grid in grids:
        for name, values in grid.items():
            schedule = name.partition("(")[0]
            ours = [mask_ratio(schedule, i / (len(values) - 1)) for i in range(len(values))]
            assert ours == pytest.approx(values, abs=2e-7)
