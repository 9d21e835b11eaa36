"""MaskGIT decoding (Chang et al. 2022) of Show-o's image tokens with classifier-free guidance.

B = rows, n = image tokens, K = codebook size, R = tokens still masked, D = hidden size. Each step draws a code for each
masked token and keeps the ones with the highest key: log-probability + temperature * Gumbel (+ a bonus for objects).

A row depends on its prompt, its Seed and the settings alone: the text part is run once by itself, rows of equal text
length share forward passes, equal rows are run once, and no matrix product has fewer than eight rows. On a CPU with a
fixed number of threads that holds to the last bit; on a GPU kernels may differ with the shape of a batch.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prefix import MIN_GEMM_ROWS, Prefix, encode_correction, encode_text, image_hidden
from genloop.models.showo.prompting import Layout
from genloop.protocols import ImageTokenizer
from genloop.records import Prompt, Seed, pack_tokens
from genloop.sampling.maskgit.flops import step_flops
from genloop.sampling.maskgit.schedule import choice_temperature, masked_after
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState, join
from genloop.sampling.noise import KeyedNoise, NoiseSource, gumbel, half_masks

_HEAD_ELEMENTS = 1 << 22  # logits held at a time


class MaskGitSampler:
    """Implements `genloop.protocols.Sampler` on a Show-o and an image tokenizer."""

    def __init__(
        self,
        model: ShowO,
        tokenizer: ImageTokenizer,
        settings: SamplingConfig,
        *,
        rows_per_forward: int = 256,
        slots: int = 64,
        before_step: Callable[[], None] = lambda: None,
        noise: NoiseSource | None = None,
    ) -> None:
        if tokenizer.num_codes != model.config.codebook_size:
            raise ValueError(
                f"the image tokenizer has {tokenizer.num_codes} codes, the model {model.config.codebook_size}; "
                "use the tokenizer that the model was trained with"
            )
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.num_steps = settings.num_steps
        self.grid = model.config.grid
        self.slots = slots
        self.before_step = before_step  # may raise, to stop in the middle of a search
        self.flops_per_step = step_flops(model.config, settings)
        self.flops_per_decode: float = getattr(tokenizer, "flops_per_decode", 0.0)
        self.mask_code = model.config.codebook_size
        self.rows_per_forward = rows_per_forward
        self.noise = noise or KeyedNoise()
        self.background_code: int | None = getattr(tokenizer, "background_code", None)
        self._layout = Layout(model.config, model.text_tokenizer)
        self._prefixes: weakref.WeakValueDictionary[str, Prefix] = weakref.WeakValueDictionary()
        self._unconditional: Prefix | None = None
        self._weights: list[float] = []  # the norms of the weights that the prefixes were computed with

    def start(
        self, prompts: Sequence[Prompt], seeds: Sequence[Seed], known: Tensor | None = None, *, round: int = 0
    ) -> MaskGitState:
        """One row for each (prompt, seed) pair: all masked, or `known` (B, n) with `mask_code` where to draw."""
        self._follow_weights()
        n, device, rows = self.model.config.num_vq_tokens, self.model.device, len(prompts)
        tokens = torch.full((rows, n), self.mask_code, device=device)
        if known is not None:
            tokens = known.to(device=device, dtype=torch.int64, copy=True)
        return MaskGitState(
            tokens=tokens,
            revealed_at=torch.where(tokens == self.mask_code, -1, 0),
            guess=tokens,
            seeds=tuple(seeds),
            prefixes=tuple(self._prefix(prompt.condition) for prompt in prompts),
            steps=(0,) * rows,
            lengths=(self.num_steps,) * rows,
            horizons=(self.settings.steps,) * rows,
            scheduled=(n,) * rows,
            before=(0,) * rows,
            rounds=(round,) * rows,
        )

    def join(self, states: Sequence[MaskGitState]) -> MaskGitState:
        """All rows of the states, in order; they may be at different steps."""
        return join(states)

    def branch(self, state: MaskGitState, seeds: Sequence[Seed]) -> MaskGitState:
        """The same paths with other noise from here on; one seed a row."""
        if len(seeds) != len(state):
            raise ValueError(f"{len(state)} rows need as many seeds, found {len(seeds)}")
        return replace(state, seeds=tuple(seeds))

    def remask(self, state: MaskGitState, drop: Tensor, num_steps: int) -> MaskGitState:
        """Mask the tokens where `drop` (B, n) is True again; a schedule of `num_steps` runs over those tokens alone."""
        return state.again(drop.to(state.tokens.device), self.mask_code, num_steps)

    def correct(self, state: MaskGitState, prompts: Sequence[Prompt], reasons: Sequence[str]) -> MaskGitState:
        """Draw every row anew behind the finished image that it was and what is wrong with it, for tuned generators.

        The layout is `Layout.correction_text`; without guidance's text a row is that of an empty prompt, as always.
        """
        self._follow_weights()
        prefixes = []
        for codes, prompt, reason in zip(state.tokens.tolist(), prompts, reasons, strict=True):
            if self.mask_code in codes:
                raise ValueError("only a finished image can be corrected")
            ids = self._layout.correction_text(codes, reason, prompt.condition)
            prefixes.append(encode_correction(self.model, ids, len(codes) + 3))
        everything = torch.ones_like(state.tokens, dtype=torch.bool)
        again = state.again(everything, self.mask_code, self.num_steps)
        return replace(again, prefixes=tuple(prefixes), horizons=(self.settings.steps,) * len(state))

    @torch.inference_mode()
    def step(self, state: MaskGitState) -> MaskGitState:
        """One decoding step for every row; a row's last one fixes all that is left."""
        self.before_step()
        if any(done >= length for done, length in zip(state.steps, state.lengths)):
            raise ValueError(f"all {max(state.lengths)} steps are done")
        masked = state.tokens == self.mask_code
        drawn, likeliest, log_p = self._fill(state, masked)
        goes_on = self._column([done + 1 < horizon for done, horizon in zip(state.steps, state.horizons)])
        still_masked = masked & self._stay_masked(self._keys(state, drawn, log_p, masked), state, masked) & goes_on
        tokens = torch.where(masked & ~still_masked, drawn, state.tokens)
        guess = torch.where(still_masked, drawn if self.settings.preview == "sampled" else likeliest, tokens)
        is_last = self._column([done + 1 == length for done, length in zip(state.steps, state.lengths)])
        tokens = torch.where(is_last, guess, tokens)
        fixed = masked & (tokens != self.mask_code)
        return replace(
            state,
            tokens=tokens,
            revealed_at=torch.where(fixed, self._column(map(sum, zip(state.before, state.steps))), state.revealed_at),
            guess=guess,
            steps=tuple(done + 1 for done in state.steps),
        )

    def preview(self, state: MaskGitState) -> Tensor:
        """The current full guess of every row as pixels: (B, 3, H, W) in [0, 1]."""
        if min(state.steps) == 0:
            raise ValueError("there is no guess before the first step")
        return self.decode(state.guess)

    @torch.inference_mode()
    def confidence(self, state: MaskGitState) -> Tensor:
        """How well each token of the guess fits the text and the others: (B, n) float32, the lowest fit worst.

        The mean of log p(token | text, tokens outside the mask) over three keyed masks, each over half of the tokens;
        without the unconditional branch, so that it costs as much as one and a half guided steps.
        """
        halves = np.stack([half_masks(*key, state.tokens.shape[1]) for key in zip(state.seeds, state.rounds)], axis=1)
        masks = torch.from_numpy(halves).to(state.tokens.device)  # (3, B, n)
        flat = masks.flatten(0, 1)
        hidden, where = self._run(state.guess.repeat(3, 1).masked_fill(flat, self.mask_code), state.prefixes * 3)
        rows, positions = flat.nonzero(as_tuple=True)
        codes = state.guess.repeat(3, 1)[rows, positions]
        log_p = torch.zeros(flat.shape, device=flat.device)
        for part, logits in self._logits_in_parts(hidden[where[rows], positions]):
            chosen = logits.log_softmax(-1).gather(1, codes[part, None])[:, 0]
            log_p[rows[part], positions[part]] = chosen
        return log_p.view(masks.shape).sum(0) / masks.sum(0)

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, n) codes -> (B, 3, H, W) pixels in [0, 1]."""
        return self.tokenizer.decode(tokens, self.grid)

    def history(self, state: MaskGitState, row: int) -> dict[str, np.ndarray]:
        """How a row came about: the step that fixed each token (n,)."""
        return {"revealed_at": state.revealed_at[row].cpu().numpy()}

    def pack(self, content: np.ndarray, history: Mapping[str, np.ndarray] | None = None) -> dict[str, str]:
        """Tokens (n,) as a row of a run holds them; of the chosen candidate with its history."""
        return {"tokens": pack_tokens(content), **{name: pack_tokens(of) for name, of in (history or {}).items()}}

    def _follow_weights(self) -> None:
        """Forget prefixes of other weights: an optimizer, a checkpoint or an adapter may have changed them in place."""
        norms = [torch.linalg.vector_norm(p.detach(), dtype=torch.float64) for p in self.model.parameters()]
        weights = torch.stack(norms).tolist()
        if weights != self._weights:
            self._weights = weights
            self._prefixes.clear()
            self._unconditional = self._prefix("") if self.settings.guidance_scale > 0 else None

    def _prefix(self, text: str) -> Prefix:
        """The text part in front of the image; kept for as long as a path needs it."""
        prefix = self._prefixes.get(text)
        if prefix is None:
            ids = self._layout.t2i_text(text)
            prefix = encode_text(self.model, ids, self.model.config.text_length - len(ids))
            self._prefixes[text] = prefix
        return prefix

    def _fill(self, state: MaskGitState, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> drawn codes, likeliest codes (known tokens as they are), log-probability of the drawn, each (B, n)."""
        drawn, likeliest = state.tokens.clone(), state.tokens.clone()
        log_p = torch.zeros(masked.shape, dtype=torch.float32, device=masked.device)
        rows, positions = masked.nonzero(as_tuple=True)  # (R,)
        if not len(rows):
            return drawn, likeliest, log_p
        hidden = self._hidden(state, rows, positions)  # (R, D)
        draw = self.noise.tokens(state.seeds, masked.shape[1], state.steps, state.rounds)
        for part, raw in self._logits_in_parts(hidden):
            at = rows[part], positions[part]
            logits = raw / self.settings.token_temperature
            probs = logits.softmax(-1)  # (R', K)
            codes = draw(probs, at)
            drawn[at], likeliest[at] = codes, logits.argmax(-1)
            log_p[at] = probs.gather(1, codes[:, None])[:, 0].clamp(min=1e-20).log()
        return drawn, likeliest, log_p

    def _logits_in_parts(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(R, D) -> slices of R and their logits (R', K), as many as memory should hold at a time."""
        size = max(MIN_GEMM_ROWS, _HEAD_ELEMENTS // self.mask_code)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            yield part, self._logits(hidden[part])

    def _logits(self, hidden: Tensor) -> Tensor:
        """(R, D) -> (R, K) float32"""
        short = MIN_GEMM_ROWS - len(hidden)
        padded = torch.cat([hidden, hidden[:1].expand(short, -1)]) if short > 0 else hidden
        return self.model.code_logits(padded)[: len(hidden)].float()

    def _hidden(self, state: MaskGitState, rows: Tensor, positions: Tensor) -> Tensor:
        """The guided hidden states of the tokens at (rows, positions): (R, D).

        (1 + g) * conditional - g * unconditional is taken in front of the head, which is affine: the logits are the
        same combination, at half the cost.
        """
        prefixes = list(state.prefixes)
        if self._unconditional is not None:
            prefixes += [self._unconditional] * len(state)
        hidden, where = self._run(state.tokens, prefixes)
        conditional = hidden[where[rows], positions]
        if self._unconditional is None:
            return conditional
        unconditional = hidden[where[rows + len(state)], positions]
        g = self.settings.guidance_scale
        return ((1 + g) * conditional.float() - g * unconditional.float()).to(hidden.dtype)

    def _run(self, tokens: Tensor, prefixes: Sequence[Prefix]) -> tuple[Tensor, Tensor]:
        """tokens (B, n) behind prefixes (B or 2B, the tokens again) -> hidden of distinct rows (U, n, D), index (2B,).

        Rows with equal tokens and text are run once: at the first step that is all rows of a prompt.
        """
        contents = [row.tobytes() for row in tokens.cpu().numpy()]
        distinct: dict[tuple[int, bytes], int] = {}
        first: list[int] = []
        where = []
        for index, prefix in enumerate(prefixes):
            key = (id(prefix), contents[index % len(contents)])
            if key not in distinct:
                distinct[key] = len(first)
                first.append(index)
            where.append(distinct[key])
        groups: dict[tuple[int, int], list[int]] = {}
        for number, index in enumerate(first):
            groups.setdefault((len(prefixes[index]), prefixes[index].position), []).append(number)
        width, n = self.model.config.phi.hidden_size, tokens.shape[1]
        hidden = torch.empty(len(first), n, width, dtype=self.model.dtype, device=tokens.device)
        for numbers in groups.values():
            for start in range(0, len(numbers), self.rows_per_forward):
                part = numbers[start : start + self.rows_per_forward]
                members = [first[number] for number in part]
                codes = tokens[[index % len(contents) for index in members]]
                hidden[part] = image_hidden(self.model, codes, [prefixes[index] for index in members])
        return hidden, torch.tensor(where, device=tokens.device)

    def _keys(self, state: MaskGitState, drawn: Tensor, log_p: Tensor, masked: Tensor) -> Tensor:
        """What the choice of kept tokens sorts by (B, n); infinite where a token is known."""
        settings = self.settings
        uniforms = self.noise.uniforms(state.seeds, drawn.shape[1], state.steps, state.rounds)
        noise = gumbel(uniforms).to(drawn.device)
        if settings.order == "random":
            return noise.masked_fill(~masked, torch.inf)
        keys = log_p
        if settings.order == "object_first":
            keys = keys + settings.object_bonus * (drawn != self._background(drawn))
        if settings.temperature_mode == "reference":
            noise = noise * self._column([seed.candidate == 0 and seed.sample == 0 for seed in state.seeds])
        temperatures = self._column(
            [
                choice_temperature(settings.temperature_mode, settings.temperature, step, horizon)
                for step, horizon in zip(state.steps, state.horizons)
            ]
        )
        return (keys + temperatures * noise).masked_fill(~masked, torch.inf)

    def _background(self, drawn: Tensor) -> Tensor | int:
        """The tokenizer's background code; without one, the code that a row's guess (B, n) shows most often (B, 1)."""
        if self.background_code is not None:
            return self.background_code
        return drawn.mode(dim=1, keepdim=True).values

    def _stay_masked(self, keys: Tensor, state: MaskGitState, masked: Tensor) -> Tensor:
        """The tokens (B, n) that stay masked: as many as the schedule says, at least one, fewer than now."""
        rows = zip(state.steps, state.horizons, state.scheduled)
        counts = [masked_after(self.settings.schedule, step, horizon, num) for step, horizon, num in rows]
        fewer = torch.minimum(torch.tensor(counts, device=keys.device), masked.sum(1) - 1)
        return lowest(keys, fewer.clamp(min=1))

    def _column(self, values: Iterable[bool | int | float]) -> Tensor:
        """One value a row -> (B, 1)."""
        return torch.tensor(list(values), device=self.model.device)[:, None]


def lowest(keys: Tensor, counts: Tensor) -> Tensor:
    """keys (B, n), counts (B,) -> True for the `counts` lowest of each row; fewer where keys are equal."""
    place = counts.clamp(max=keys.shape[1] - 1)[:, None]
    return keys < keys.sort(dim=1).values.gather(1, place)
