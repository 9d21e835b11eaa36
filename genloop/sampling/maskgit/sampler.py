"""MaskGIT decoding (Chang et al. 2022) of Show-o's image tokens with classifier-free guidance.

B = rows, n = image tokens, K = codebook size, R = tokens still masked, D = hidden size. Each step draws a code for each
masked token and keeps the ones with the highest key: log-probability + temperature * Gumbel (+ a bonus for objects).

A row depends on its prompt, its Seed and the settings alone: the text part is run once by itself, rows of equal text
length share forward passes, equal rows are run once, and no matrix product has fewer than eight rows. On a CPU with a
fixed number of threads that holds to the last bit; on a GPU kernels may differ with the shape of a batch.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.footprint import kind_of
from genloop.models.common.memory import Budget
from genloop.models.showo.model import ShowO
from genloop.models.showo.prefix import MIN_GEMM_ROWS, Prefix, encode_correction, encode_text
from genloop.models.showo.prompting import Layout
from genloop.protocols import ImageTokenizer
from genloop.records import Prompt, Seed, pack_tokens
from genloop.sampling.maskgit.columns import columns_of
from genloop.sampling.maskgit.flops import step_flops
from genloop.sampling.maskgit.passes import passes_of
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState, join
from genloop.sampling.noise import KeyedNoise, NoiseSource, gumbel, half_masks, random_cells

_ON_A_CPU, _ON_A_GPU = 1 << 22, 1 << 26  # logits held at a time


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
        self._passes = passes_of(model, settings, rows_per_forward=rows_per_forward, slots=slots)
        elements = _ON_A_GPU if kind_of(model.device) == "cuda" else _ON_A_CPU
        self._head = Budget(max(MIN_GEMM_ROWS, elements // self.mask_code), "tokens in a pass of the head")
        self.noise = noise or KeyedNoise()
        self.images_per_decode: int = getattr(tokenizer, "images_per_pass", 1)
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
            guidance=(1.0,) * rows,
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

    def renoise(
        self,
        state: MaskGitState,
        prompts: Sequence[Prompt],
        strength: float,
        guidance: float = 1.0,
        cells: Tensor | None = None,
    ) -> MaskGitState:
        """Mask `cells` (B, n), or a share of the tokens by chance, as masked diffusion noises; the others stay."""
        self._follow_weights()
        if cells is None:
            n = state.tokens.shape[1]
            count = max(1, round(strength * n))
            drawn = [random_cells(seed, number, n, count) for seed, number in zip(state.seeds, state.rounds)]
            cells = torch.from_numpy(np.stack(drawn))
        again = self.remask(state, cells, max(1, math.ceil(strength * self.num_steps)))
        prefixes = tuple(self._prefix(prompt.condition) for prompt in prompts)
        return replace(again, prefixes=prefixes, guidance=(guidance,) * len(state))

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
        drawn, shown, log_p = self._fill(state, masked)
        columns = columns_of(state, self.settings, masked.device)
        fewer = torch.minimum(columns.stay_masked[:, 0], masked.sum(1) - 1)  # at least one, fewer than now
        stays = lowest(self._keys(state, drawn, log_p, masked, columns.noise), fewer.clamp(min=1))
        still_masked = masked & stays & columns.goes_on
        tokens = torch.where(masked & ~still_masked, drawn, state.tokens)
        guess = torch.where(still_masked, shown, tokens)
        tokens = torch.where(columns.is_last, guess, tokens)
        fixed = masked & (tokens != self.mask_code)
        return replace(
            state,
            tokens=tokens,
            revealed_at=torch.where(fixed, columns.number, state.revealed_at),
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
        hidden, where = self._passes.run(state.guess.repeat(3, 1).masked_fill(flat, self.mask_code), state.prefixes * 3)
        rows, positions = flat.nonzero(as_tuple=True)
        codes = state.guess.repeat(3, 1)[rows, positions]
        log_p = torch.zeros(flat.shape, device=flat.device)

        def use(part: slice, logits: Tensor) -> None:
            chosen = logits.log_softmax(-1).gather(1, codes[part, None])[:, 0]
            log_p[rows[part], positions[part]] = chosen

        self._in_parts(hidden[where[rows], positions], use)
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
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        weights = torch.stack(torch._foreach_norm(parameters, 2, dtype=torch.float64)).tolist()  # few kernels on a GPU
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
        """-> drawn codes, codes that a preview shows (known tokens as they are), log-probability of the drawn: (B, n).

        The log-probability of a known token is of no use.
        """
        drawn = state.tokens.clone()
        shown = drawn if self.settings.preview == "sampled" else drawn.clone()
        log_p = torch.zeros(masked.shape, dtype=torch.float32, device=masked.device)
        rows, positions = self._passes.wanted(masked)  # (R,)
        if not len(rows):
            return drawn, shown, log_p
        hidden = self._hidden(state, rows, positions)  # (R, D)
        draw = self.noise.tokens(state.seeds, masked.shape[1], state.steps, state.rounds)

        def use(part: slice, raw: Tensor) -> None:
            at = rows[part], positions[part]
            logits = raw / self.settings.token_temperature
            probs = logits.softmax(-1)  # (R', K)
            codes = draw(probs, at)
            drawn[at] = codes
            if shown is not drawn:
                shown[at] = logits.argmax(-1)
            log_p[at] = probs.gather(1, codes[:, None])[:, 0].clamp(min=1e-20).log()

        self._in_parts(hidden, use)
        return torch.where(masked, drawn, state.tokens), torch.where(masked, shown, state.tokens), log_p

    def _in_parts(self, hidden: Tensor, use: Callable[[slice, Tensor], None]) -> None:
        """Call `use` with slices of (R, D) and their logits (R', K), as many as memory should hold at a time."""

        def compute(rows: range) -> range:
            part = slice(rows.start, rows.stop)
            use(part, self._logits(hidden[part]))
            return rows

        self._head.run(range(len(hidden)), 1, compute)  # type: ignore[arg-type]

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
        hidden, where = self._passes.run(state.tokens, prefixes)
        conditional = hidden[where[rows], positions]
        if self._unconditional is None:
            return conditional
        unconditional = hidden[where[rows + len(state)], positions]
        g = self.settings.guidance_scale * torch.tensor(state.guidance, dtype=torch.float64)
        both = torch.stack([1 + g, g]).float().to(hidden.device)  # rounded once, as plain numbers would be
        with_text, without = both[:, rows, None]  # (R, 1) each
        return (with_text * conditional.float() - without * unconditional.float()).to(hidden.dtype)

    def _keys(self, state: MaskGitState, drawn: Tensor, log_p: Tensor, masked: Tensor, factor: Tensor) -> Tensor:
        """What the choice of kept tokens sorts by (B, n); infinite where a token is known. factor (B, 1): of noise."""
        settings = self.settings
        uniforms = self.noise.uniforms(state.seeds, drawn.shape[1], state.steps, state.rounds)
        noise = gumbel(uniforms).to(drawn.device)
        if settings.order == "random":
            return noise.masked_fill(~masked, torch.inf)
        keys = log_p
        if settings.order == "object_first":
            keys = keys + settings.object_bonus * (drawn != self._background(drawn))
        return (keys + factor * noise).masked_fill(~masked, torch.inf)

    def _background(self, drawn: Tensor) -> Tensor | int:
        """The tokenizer's background code; without one, the code that a row's guess (B, n) shows most often (B, 1)."""
        if self.background_code is not None:
            return self.background_code
        return drawn.mode(dim=1, keepdim=True).values


def lowest(keys: Tensor, counts: Tensor) -> Tensor:
    """keys (B, n), counts (B,) -> True for the `counts` lowest of each row; fewer where keys are equal."""
    place = counts.clamp(max=keys.shape[1] - 1)[:, None]
    return keys < keys.sort(dim=1).values.gather(1, place)
