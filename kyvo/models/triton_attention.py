"""A few new queries per row over that row's part of a KV cache, as a fused Triton kernel.

Each program reads the keys and values of one row and one key-value head up to the row's newest
position and no further, so a step costs what its rows hold and not what the cache could hold. With
few rows the positions are split among several programs, whose partial sums are then merged
("split KV").

Shapes: B rows, T new positions, H heads, K key-value heads, G = H / K, E head width, M cache
length, P splits; a program's queries are its T x G, padded to what a matrix multiplication needs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = tl.constexpr(1.4426950408889634)
_MOST_SPLITS = 8
# Triton multiplies matrices of at least so many rows and columns.
_LEAST = 16
_POSITIONS_AT_A_TIME = 64
# Of an H100; used where Triton's interpreter takes the place of a GPU.
_MULTIPROCESSORS = 132


@torch.library.custom_op("kyvo::cached_attention", mutates_args=())
def cached_attention(
    q_BTHE: Tensor, k_BKME: Tensor, v_BKME: Tensor, positions_BT: Tensor
) -> Tensor:
    """Attention (B, T, H, E) of queries at ``positions_BT`` over the cache up to each of them.

    A row's positions ascend, and its keys and values are in the cache already. Scale 1 / sqrt(E),
    sums in float32.
    """
    num_rows, num_new, num_heads, width = q_BTHE.shape
    num_kv = k_BKME.shape[1]
    group = num_heads // num_kv
    splits = _num_splits(num_rows * num_kv, q_BTHE.device)
    q_BTHE = q_BTHE.contiguous()
    out_BTHE = torch.empty_like(q_BTHE)
    partial_PBTHE = out_BTHE[None]
    norms_PBTH = q_BTHE.new_empty((splits, 2, *q_BTHE.shape[:3]), dtype=torch.float32)
    if splits > 1:
        partial_PBTHE = q_BTHE.new_empty((splits, *q_BTHE.shape), dtype=torch.float32)
    block_e = max(_LEAST, triton.next_power_of_2(width))
    _attend[(num_rows * num_kv, splits)](
        q_BTHE,
        k_BKME,
        v_BKME,
        positions_BT.contiguous(),
        partial_PBTHE,
        norms_PBTH,
        k_BKME.stride(0),
        k_BKME.stride(1),
        width**-0.5,
        out_BTHE.numel(),
        num_kv,
        group=group,
        num_new=num_new,
        width=width,
        splits=splits,
        block_q=max(_LEAST, triton.next_power_of_2(num_new * group)),
        block_n=_POSITIONS_AT_A_TIME,
        block_e=block_e,
        num_warps=4,
    )
    if splits > 1:
        _merge[(num_rows * num_new * num_heads,)](
            partial_PBTHE,
            norms_PBTH,
            out_BTHE,
            num_rows * num_new * num_heads,
            width=width,
            splits=splits,
            block_e=block_e,
            num_warps=1,
        )
    return out_BTHE


@cached_attention.register_fake
def _(q_BTHE: Tensor, k_BKME: Tensor, v_BKME: Tensor, positions_BT: Tensor) -> Tensor:
    return torch.empty(q_BTHE.shape, dtype=q_BTHE.dtype, device=q_BTHE.device)


def _num_splits(num_programs: int, device: torch.device) -> int:
    """A power of two: about two programs for every multiprocessor."""
    wanted = 2 * _MULTIPROCESSORS
    if device.type == "cuda":
        wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    splits = max(1, min(_MOST_SPLITS, wanted // num_programs))
    return 1 << (splits.bit_length() - 1)


@triton.jit
def _attend(
    queries,
    keys,
    values,
    positions,
    out,
    norms,
    row_stride,
    head_stride,
    scale,
    out_size,
    num_kv,
    group: tl.constexpr,
    num_new: tl.constexpr,
    width: tl.constexpr,
    splits: tl.constexpr,
    block_q: tl.constexpr,
    block_n: tl.constexpr,
    block_e: tl.constexpr,
):
    """One row, one key-value head, one split of the positions: an online softmax."""
    row, head = tl.program_id(0) // num_kv, tl.program_id(0) % num_kv
    split = tl.program_id(1)
    length = tl.load(positions + row * num_new + num_new - 1) + 1
    share = tl.cdiv(tl.cdiv(length, splits), block_n) * block_n
    first = split * share
    last = tl.minimum(first + share, length)

    query = tl.arange(0, block_q)
    is_query = query < num_new * group
    new = query // group
    column = tl.arange(0, block_e)
    is_column = column < width
    # Flat index of each query's (row, new, head) in the outputs.
    place = (row * num_new + new) * num_kv * group + head * group + query % group
    inside = is_query[:, None] & is_column[None, :]
    q = tl.load(queries + place[:, None] * width + column[None, :], mask=inside, other=0.0)
    limit = tl.load(positions + row * num_new + new, mask=is_query, other=0)

    base = row.to(tl.int64) * row_stride + head * head_stride
    m_i = tl.full((block_q,), float("-inf"), tl.float32)
    l_i = tl.zeros((block_q,), tl.float32)
    acc = tl.zeros((block_q, block_e), tl.float32)
    for start in range(first, last, block_n):
        position = start + tl.arange(0, block_n)
        is_there = (position < last)[:, None] & is_column[None, :]
        cell = base + position[:, None] * width + column[None, :]
        k = tl.load(keys + cell, mask=is_there, other=0.0)
        v = tl.load(values + cell, mask=is_there, other=0.0)
        seen = (position[None, :] <= limit[:, None]) & (position < last)[None, :]
        m_i, l_i, acc = _update(q, k, v, seen, scale * _LOG2_E, m_i, l_i, acc)
    if splits == 1:
        acc = acc / l_i[:, None]
    else:
        cells = out_size // width
        tl.store(norms + split * 2 * cells + place, m_i, mask=is_query)
        tl.store(norms + (split * 2 + 1) * cells + place, l_i, mask=is_query)
        out += split * out_size
    tl.store(out + place[:, None] * width + column[None, :], acc, mask=inside)


@triton.jit
def _update(q, k, v, seen, scale, m_i, l_i, acc):
    """Online-softmax update: largest score m_i, sum of weights l_i, weighted sum of values acc."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    m_new = tl.maximum(m_i, tl.max(scores, 1))
    # A query that has seen nothing yet: any finite shift leaves its sums at zero.
    shift = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = tl.exp2(scores - shift[:, None])
    alpha = tl.exp2(m_i - shift)
    acc = acc * alpha[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return m_new, l_i * alpha + tl.sum(p, 1), acc


@triton.jit
def _merge(
    partial,
    norms,
    out,
    cells,
    width: tl.constexpr,
    splits: tl.constexpr,
    block_e: tl.constexpr,
):
    """Add up one query's splits, each scaled to the largest score of all."""
    place = tl.program_id(0)
    split = tl.arange(0, splits)
    m_i = tl.load(norms + split * 2 * cells + place)
    l_i = tl.load(norms + (split * 2 + 1) * cells + place)
    alpha = tl.exp2(m_i - tl.max(m_i, 0))
    column = tl.arange(0, block_e)
    inside = (split >= 0)[:, None] & (column < width)[None, :]
    cell = (split[:, None] * cells + place) * width + column[None, :]
    acc = tl.sum(tl.load(partial + cell, mask=inside, other=0.0) * alpha[:, None], 0)
    tl.store(out + place * width + column, acc / tl.sum(l_i * alpha, 0), mask=column < width)
