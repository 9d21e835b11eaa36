"""The tables of the solvers, read off the schedulers of diffusers: timesteps and noise levels are theirs. n = steps.

The configuration is that of the checkpoint's scheduler, whichever solver is asked for: betas, spacing, prediction.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genloop.registry import require
from genloop.sampling.diffusion.settings import Scheduler
from genloop.sampling.diffusion.solvers import (
    Levels,
    Prediction,
    StepTable,
    consistency,
    first_order,
    second_order,
)

CLASSES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}
PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    "sample": "sample",
    "flow_prediction": "flow",
}
_NOT_HERE = ("clip_sample", "thresholding", "use_dynamic_shifting", "stochastic_sampling", "use_flow_sigmas")
_LCM_STEPS = 50  # original_inference_steps where a config has none


def check_scheduler(config: Mapping[str, Any], kind: Scheduler, num_steps: int) -> str:
    """The solver's name, `checkpoint` looked up; ValueError for one that does not fit the checkpoint's scheduler."""
    title = config.get("_class_name")
    own = next((name for name, known in CLASSES.items() if known == title), None)
    if kind == "checkpoint" and own is None:
        raise ValueError(f"sampling.scheduler: the checkpoint's {title} is none of {', '.join(CLASSES)}; name one")
    found = own if kind == "checkpoint" else kind
    assert found is not None
    if (found == "flow_euler") != (own == "flow_euler"):
        raise ValueError(f"sampling.scheduler: {found} does not fit a checkpoint of {title}")
    if refused := [key for key in _NOT_HERE if config.get(key)]:
        raise ValueError(
            f"sampling.scheduler: the checkpoint's scheduler has {refused[0]}=true, which no solver here has"
        )
    if (prediction := config.get("prediction_type", "epsilon")) not in PREDICTIONS:
        raise ValueError(f"sampling.scheduler: the checkpoint's prediction_type is {prediction!r}")
    if found == "dpmpp_2m" and own == "dpmpp_2m":
        order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
        if (order, algorithm) != (2, "dpmsolver++"):
            raise ValueError(
                f"sampling.scheduler: dpmpp_2m is dpmsolver++ of order 2, found {algorithm} of order {order}"
            )
    limit = config.get("original_inference_steps", _LCM_STEPS)
    if found == "lcm" and num_steps > limit:
        raise ValueError(f"sampling.steps: lcm takes at most {limit} steps, found {num_steps}")
    return found


def scheduler_table(config: Mapping[str, Any], kind: Scheduler, num_steps: int) -> StepTable:
    """The solver's numbers for so many steps."""
    found = check_scheduler(config, kind, num_steps)
    scheduler = build_scheduler(config, found)
    scheduler.set_timesteps(num_steps)
    prediction = PREDICTIONS[config.get("prediction_type", "epsilon")]
    if found == "flow_euler":
        return first_order(_flow_levels(scheduler), "flow")
    if found == "euler":
        return first_order(_euler_levels(scheduler), prediction)
    if found == "ddim":
        return first_order(_ddim_levels(scheduler, num_steps), prediction)
    if found == "lcm":
        own = scheduler.config
        return consistency(_lcm_levels(scheduler), prediction, timestep_scaling=own.timestep_scaling, sigma_data=0.5)
    own = scheduler.config
    last = own.euler_at_final or own.final_sigmas_type == "zero" or (own.lower_order_final and num_steps < 15)
    return second_order(_dpm_levels(scheduler), prediction, solver_type=own.solver_type, ends_in_first_order=bool(last))


def build_scheduler(config: Mapping[str, Any], name: str) -> Any:
    """A scheduler of diffusers with the configuration of another; latents are never clipped."""
    scheduler_class = getattr(require("diffusers", "diffusion"), CLASSES[name])
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    return scheduler_class.from_config(given | ({"clip_sample": False} if name == "ddim" else {}))


def _numbers(values: Any) -> np.ndarray:
    """A tensor or array -> float64"""
    return np.asarray(values.tolist(), dtype=np.float64)


def _euler_levels(scheduler: Any) -> Levels:
    sigmas, ones = _numbers(scheduler.sigmas), np.ones(len(scheduler.timesteps))
    start = float(scheduler.init_noise_sigma)
    return Levels(_numbers(scheduler.timesteps), ones, sigmas[:-1], ones, sigmas[1:], start, scales=True)


def _flow_levels(scheduler: Any) -> Levels:
    sigmas = _numbers(scheduler.sigmas)
    before, behind = sigmas[:-1], sigmas[1:]
    return Levels(_numbers(scheduler.timesteps), 1 - before, before, 1 - behind, behind, 1.0, scales=False)


def _dpm_levels(scheduler: Any) -> Levels:
    sigmas = _numbers(scheduler.sigmas)
    alphas = 1 / np.hypot(1, sigmas)
    noise = sigmas * alphas
    return Levels(_numbers(scheduler.timesteps), alphas[:-1], noise[:-1], alphas[1:], noise[1:], 1.0, scales=False)


def _ddim_levels(scheduler: Any, num_steps: int) -> Levels:
    kept, timesteps = _numbers(scheduler.alphas_cumprod), scheduler.timesteps.tolist()
    stride, last = scheduler.config.num_train_timesteps // num_steps, float(scheduler.final_alpha_cumprod)
    behind = [kept[time - stride] if time >= stride else last for time in timesteps]
    return _cumulated(timesteps, kept[timesteps], np.array(behind))


def _lcm_levels(scheduler: Any) -> Levels:
    kept, timesteps = _numbers(scheduler.alphas_cumprod), scheduler.timesteps.tolist()
    return _cumulated(timesteps, kept[timesteps], np.append(kept[timesteps[1:]], 1.0))


def _cumulated(timesteps: list[int], before: np.ndarray, behind: np.ndarray) -> Levels:
    """Levels from cumulated products of alphas before and behind each step."""
    parts = np.sqrt(before), np.sqrt(1 - before), np.sqrt(behind), np.sqrt(1 - behind)
    return Levels(np.array(timesteps, dtype=np.float64), *parts, 1.0, scales=False)
