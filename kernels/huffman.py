"""Huffman codes of bytes in lanes of 64 that are decoded side by side; codes of at most 12 bits.

A lane's codes follow each other in one stream of bits, highest bit first, and each lane says
where it starts, so that all lanes can be read at once (DFloat11, arXiv 2504.11651, keeps such
starts too). Decoding walks no code after another: the length of the code that would start at
each bit is looked up for all bits together, and six rounds of doubling find the 64 places.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 12
LANE = 64
GROUP = 64  # lanes that share a base, from which each counts its start in 16 bits
CHUNK = 16 * GROUP  # lanes decoded at a time: what fits a core's cache
WINDOW = LANE * LIMIT // 8 + 3  # bytes that hold a lane wherever in a byte it starts


def code_lengths(counts: Tensor) -> Tensor:
    """Lengths of the best prefix code of at most 12 bits for symbols that occur `counts` times.

    Package-merge (Larmore and Hirschberg, 1990): optimal under the limit. A symbol that never
    occurs has length 0; one alone has length 1.
    """
    used = [(int(count), (symbol,)) for symbol, count in enumerate(counts.tolist()) if count]
    lengths = [0] * counts.numel()
    if len(used) == 1:
        lengths[used[0][1][0]] = 1
        return torch.tensor(lengths, dtype=torch.uint8)
    used.sort()
    packages = used
    for _ in range(LIMIT - 1):
        pairs = zip(packages[::2], packages[1::2], strict=False)
        merged = [(first[0] + second[0], first[1] + second[1]) for first, second in pairs]
        packages = sorted(used + merged)
    for _, symbols in packages[: 2 * len(used) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return torch.tensor(lengths, dtype=torch.uint8)


def table(lengths: Tensor) -> Tensor:
    """256 times the length and the symbol for each 12 bits that may come next, [4096], int64.

    Codes are canonical: shorter before longer, and by symbol where they are as long.
    """
    symbols = lengths.nonzero().flatten()
    order = lengths[symbols].argsort(stable=True)
    symbols = symbols[order]
    found = lengths[symbols]
    shares = torch.bitwise_left_shift(torch.ones_like(symbols), LIMIT - found.to(torch.int64))
    lookup = torch.full((1 << LIMIT,), 256, device=lengths.device)
    filled = (found.to(torch.int64) * 256 + symbols).repeat_interleave(shares)
    lookup[: filled.numel()] = filled
    return lookup


def encode(symbols: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A stream of bits for symbols [lanes * 64], uint8, and where its lanes start.

    Returns:
        Bytes, padded so that every lane can be read whole; bases of the groups, int64; starts
        of the lanes behind their base, int16.
    """
    order = lengths.nonzero().flatten()
    order = order[lengths[order].argsort(stable=True)]
    wide = torch.zeros(256, dtype=torch.int64)
    wide[: lengths.numel()] = lengths.to(torch.int64)
    codes = torch.zeros(256, dtype=torch.int64)
    code = previous = 0
    for symbol in order.tolist():
        code <<= int(wide[symbol]) - previous
        previous = int(wide[symbol])
        codes[symbol] = code
        code += 1
    places = symbols.to(torch.int64)
    sizes, values = wide[places], codes[places]
    ends = sizes.cumsum(0)
    starts = ends - sizes
    whole = -(-int(ends[-1]) // 8) + WINDOW
    bits = torch.zeros(8 * whole, dtype=torch.uint8)
    for place in range(int(sizes.max())):
        long = sizes > place
        bits[starts[long] + place] = ((values[long] >> (sizes[long] - 1 - place)) & 1).to(
            torch.uint8
        )
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    stream = (bits.view(-1, 8) * weights).sum(1, dtype=torch.uint8)
    lanes = starts[::LANE]
    bases = lanes[::GROUP].clone()
    within = lanes - bases.repeat_interleave(GROUP)[: lanes.numel()]
    return stream, bases, within.to(torch.uint16).view(torch.int16)


def decode(stream: Tensor, bases: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Symbols of all lanes [lanes, 64], uint8."""
    lookup = table(lengths)
    places = lane_places(bases, starts)
    found = []
    for first in range(0, places.numel(), CHUNK):
        mine = places[first : first + CHUNK]
        begin = int(mine[0]) // 8
        piece = stream[begin : int(mine[-1]) // 8 + WINDOW]
        found.append(_walk(piece, mine - 8 * begin, lookup))
    return torch.cat(found)


def decode_lanes(
    stream: Tensor, bases: Tensor, starts: Tensor, lengths: Tensor, lanes: Tensor
) -> Tensor:
    """Symbols of some lanes [number of lanes, 64], uint8, by their places."""
    places = lane_places(bases, starts)[lanes]
    reach = torch.arange(WINDOW, device=stream.device)
    piece = stream[(places // 8).unsqueeze(1) + reach].flatten()
    own = torch.arange(lanes.numel(), device=stream.device) * (8 * WINDOW) + places % 8
    return _walk(piece, own, table(lengths))


def lane_places(bases: Tensor, starts: Tensor) -> Tensor:
    """Bit at which each lane starts, [lanes], int64."""
    within = starts.view(torch.uint16).to(torch.int64)
    return bases.repeat_interleave(GROUP)[: starts.numel()] + within


def _walk(piece: Tensor, starts: Tensor, lookup: Tensor) -> Tensor:
    """Symbols [lanes, 64] of lanes that start at bits `starts` of some bytes.

    `jumps` leads from each bit to the bit after one code, then after two, four and so on.
    """
    wide = torch.nn.functional.pad(piece.to(torch.int64), (0, 2))
    three = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    shifts = torch.arange(LIMIT, LIMIT - 8, -1, device=piece.device)
    ahead = ((three.unsqueeze(1) >> shifts) & ((1 << LIMIT) - 1)).flatten()
    found = lookup.index_select(0, ahead)
    jumps = (found >> 8).add_(torch.arange(found.numel(), device=piece.device))
    jumps.clamp_(max=found.numel() - 1)
    places = starts.unsqueeze(1)
    while places.shape[1] < LANE:
        after = jumps.index_select(0, places.flatten()).view(places.shape)
        places = torch.cat([places, after], 1)
        if places.shape[1] < LANE:
            jumps = jumps.index_select(0, jumps)
    return found.index_select(0, places.flatten()).to(torch.uint8).view(-1, LANE)
