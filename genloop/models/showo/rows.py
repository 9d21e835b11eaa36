"""Show-o's image rows behind prefixes of any lengths: the stock layers, without the work that nobody reads.

B = rows, Q = image tokens with soi and eoi, M = B Q places, U = distinct ids, R = wanted places, P = prefix tokens,
D = hidden size, H = heads, C = head size. Three things are left out, none of which changes a number:

- What the first layer makes of a token in front of the attention depends on its id alone: it is computed once an id.
- Behind the last attention only those tokens go on whose hidden states are wanted.
- Rows of all prefixes share the matrix products; the attention alone goes from one prefix length to the next.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prefix import MIN_GEMM_ROWS, Prefix, image_ids


@torch.inference_mode()
def image_hidden(model: ShowO, codes: Tensor, prefixes: Sequence[Prefix], wanted: Tensor | None = None) -> Tensor:
    """Codes (B, n), each behind its prefix -> normalised hidden states of the codes (B, n, D).

    Where `wanted` (B, n) is given and False they are 0. A row's result does not depend on the rows beside it.
    """
    ids = image_ids(model.config, codes)
    chosen = F.pad(torch.ones_like(codes, dtype=torch.bool) if wanted is None else wanted, (1, 1))
    where = chosen.flatten().nonzero()[:, 0]  # (R,)
    repeats = -(-MIN_GEMM_ROWS // ids.numel())
    found = _run(model, ids.repeat(repeats, 1), list(prefixes) * repeats, _enough(where))
    hidden = found.new_zeros(ids.numel(), found.shape[1])
    return hidden.index_copy_(0, where, found[: len(where)]).view(*ids.shape, -1)[:, 1:-1]


def _run(model: ShowO, ids: Tensor, prefixes: Sequence[Prefix], wanted: Tensor) -> Tensor:
    """ids (B, Q), each row behind its prefix -> normalised hidden states (R, D) of the wanted places among the M."""
    phi = model.showo.model
    known = np.unique(ids.flatten().cpu().numpy(), return_inverse=True)  # by numpy: the meta device has no unique
    distinct, place = (torch.from_numpy(part).to(ids.device) for part in known)  # (U,), (M,)
    hidden = phi.embed_tokens(_enough(distinct))
    places = _Places(phi, ids, prefixes)
    for number, layer in enumerate(phi.layers):
        is_first, is_last = number == 0, number == len(phi.layers) - 1
        attention: Any = layer.self_attn
        normed = layer.input_layernorm(hidden)
        parts = _projected(attention, normed)
        attended = places.attended(attention, *([part[place] for part in parts] if is_first else parts))
        if is_last:
            attended = attended[wanted]
            place = place[wanted]
        if is_last and not is_first:
            normed, hidden = normed[wanted], hidden[wanted]
        ahead = layer.mlp(normed)
        if is_first:
            ahead, hidden = ahead[place], hidden[place]
        hidden = attention.dense(attended).add_(ahead).add_(hidden)
    return phi.final_layernorm(hidden)


def _projected(attention: Any, normed: Tensor) -> list[Tensor]:
    """(M, D) -> queries, keys and values (M, H, C), the first two normalised."""
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (layer(normed).unflatten(-1, (-1, attention.head_dim)) for layer in layers)
    return [attention.q_layernorm(query), attention.k_layernorm(key), value]


class _Group(NamedTuple):
    """Neighbouring rows whose prefixes have one length, and room for their keys and values."""

    rows: slice
    prefixes: Sequence[Prefix]  # one where all rows have the same
    keys: Tensor  # (rows, P + Q, H, C)
    values: Tensor


class _Places:
    """Where the M places are: behind which prefixes, at which positions."""

    def __init__(self, phi: Any, ids: Tensor, prefixes: Sequence[Prefix]) -> None:
        self.shape = ids.shape
        starts = torch.tensor([prefix.position for prefix in prefixes], device=ids.device)
        positions = starts[:, None] + torch.arange(ids.shape[1], device=ids.device)
        some = prefixes[0].keys[0, 0]
        tables = phi.rotary_emb(some, position_ids=positions)  # (B, Q, 2 C') each, the second half as the first
        self.cosines, self.sines = (table[:, :, None].chunk(2, dim=-1)[0] for table in tables)
        self.groups = list(_groups(prefixes, ids.shape[1]))

    def attended(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values (M, H, C) of a layer -> what the queries see of their prefixes and rows, (M, D)."""
        query, key, value = (part.view(*self.shape, *part.shape[1:]) for part in (query, key, value))
        query = self._rotated(query, torch.empty_like(query), slice(None))
        found = []
        for rows, prefixes, keys, values in self.groups:
            front = keys.shape[1] - self.shape[1]
            for room, part in ((keys, "keys"), (values, "values")):
                kept = [getattr(prefix, part)[attention.layer_idx].transpose(0, 1) for prefix in prefixes]
                room[:, :front] = kept[0] if len(kept) == 1 else torch.stack(kept)
            self._rotated(key[rows], keys[:, front:], rows)
            values[:, front:] = value[rows]
            seen = F.scaled_dot_product_attention(
                query[rows].transpose(1, 2),
                keys.transpose(1, 2),
                values.transpose(1, 2),
                scale=attention.scaling,
                enable_gqa=attention.num_key_value_groups > 1,
            )
            found.append(seen.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _rotated(self, x: Tensor, out: Tensor, rows: slice) -> Tensor:
        """Rotary positions of (B, Q, H, C), into `out`."""
        cosines, sines = self.cosines[rows], self.sines[rows]
        half = cosines.shape[-1]
        (first, second, rest), parts = (part.tensor_split((half, 2 * half), dim=-1) for part in (x, out))
        torch.mul(first, cosines, out=parts[0]).addcmul_(second, sines, value=-1)
        torch.mul(second, cosines, out=parts[1]).addcmul_(first, sines)
        parts[2].copy_(rest)
        return out


def _groups(prefixes: Sequence[Prefix], length: int) -> Iterator[_Group]:
    """Runs of rows whose prefixes have one length."""
    start = 0
    for size, run in groupby(prefixes, len):
        members = list(run)
        is_shared = all(prefix is members[0] for prefix in members)
        _, heads, _, width = members[0].keys.shape
        keys, values = members[0].keys.new_empty(2, len(members), size + length, heads, width)
        yield _Group(slice(start, start + len(members)), members[:1] if is_shared else members, keys, values)
        start += len(members)


def _enough(index: Tensor) -> Tensor:
    """(R,) -> at least as many numbers as a matrix product needs rows; further ones are 0."""
    return F.pad(index, (0, max(0, MIN_GEMM_ROWS - len(index))))
