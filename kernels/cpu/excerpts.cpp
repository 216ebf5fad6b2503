// Parts of several rows at once, in float32: groups of codes whose scales may be codes themselves.
#include "decode.h"

#include <optional>

namespace {

// Whether loops know the groups: eight codes never meet two of them.
bool has_blocks(const Packed *matrix) {
    if (matrix->decode != decode_integers) return false;
    const int64_t size = as<IntegerGroups>(matrix).group_size;
    return size % 8 == 0 || size >= matrix->columns;
}

// Whether rows are bytes that each share one scale, as scales of groups often are themselves.
bool are_bytes(const Packed *matrix) {
    if (matrix->decode != decode_integers) return false;
    const IntegerGroups &held = as<IntegerGroups>(matrix);
    const uint8_t *const *planes = held.codes.planes, *const *zeros = held.zero_points.planes;
    return planes[3] && !planes[0] && !planes[1] && !planes[2] && !held.offsets && !zeros[0] &&
           !zeros[1] && !zeros[2] && !zeros[3] && held.group_size >= matrix->columns;
}

// Where the codes of a block lie, whose first row is `row`.
void place_lines(CodeBlock &block, const Codes &codes, int64_t row) {
    for (int plane = 0; plane < 4; plane++) {
        if (!codes.planes[plane]) continue;
        block.bytes[plane] = bytes_of(block.columns, 1 << plane);
        block.lines[plane] = codes.planes[plane] + row * block.bytes[plane];
    }
}

// What the codes of the groups of an excerpt are worth, in a room: factors and offsets [rows, groups].
CodeBlock take_block(const IntegerGroups &held, const Excerpt &of, State &state) {
    const int64_t columns = held.shape.columns;
    const int64_t size = held.group_size < columns ? held.group_size : (columns + 7) / 8 * 8;
    const int64_t first = of.column / size;
    const int64_t groups = (of.column + of.count - 1) / size - first + 1;
    const int64_t several = of.rows * groups;
    state.tile.resize(2 * several);
    float *factors = state.tile.data(), *offsets = factors + several;
    const Excerpt inner = {of.row, of.rows, first, groups};
    decode_excerpt(held.scales, inner, factors, state.inner(0));
    if (held.unit != 1) loops->scale_by(factors, held.unit, several);
    if (held.offsets)
        decode_excerpt(held.offsets, inner, offsets, state.inner(1));
    else
        std::fill_n(offsets, several, 0.0f);
    if (planes_of(held.zero_points)) {
        decode_codes(held.zero_points, held.scales->columns, inner, offsets);
        for (int64_t i = 0; i < several; i++) offsets[i] = (held.middle - offsets[i]) * factors[i];
    }
    CodeBlock found = {{},         {},           columns,  of.rows, of.column,
                       of.count, size, groups, held.middle, factors, offsets};
    place_lines(found, held.codes, of.row);
    return found;
}

// Codes into a table of up to 256 numbers, in groups that eight divides.
bool has_entries(const Packed *matrix, int64_t column) {
    if (matrix->decode != decode_codebook || column % 8) return false;
    const Codebook &held = as<Codebook>(matrix);
    const int planes = planes_of(held.codes);
    const bool fitting = !held.scales || held.group_size % 8 == 0 || held.scales->columns == 1;
    return held.dimension == 1 && held.size <= 256 && fitting && loops->write_looked_up[planes];
}

void decode_entries(const Codebook &held, const Excerpt &of, float *out, State &state) {
    CodeBlock block = {{}, {}, held.shape.columns, of.rows, of.column, of.count, 0, 0, 0, nullptr,
                       nullptr};
    if (held.scales) {
        const int64_t first = of.column / held.group_size;
        block.group_size = held.group_size;
        block.groups = (of.column + of.count - 1) / held.group_size - first + 1;
        state.tile.resize(of.rows * block.groups);
        decode_excerpt(held.scales, {of.row, of.rows, first, block.groups}, state.tile.data(),
                       state.inner(0));
        block.factors = state.tile.data();
    }
    place_lines(block, held.codes, of.row);
    const uint16_t *own = held.rows ? held.rows + of.row * held.size : nullptr;
    loops->write_looked_up[planes_of(held.codes)](block, {held.table, own, held.size}, out);
}

// Values of all rows first, as they lie behind each other.
void decode_fours(const TwoOfFour &held, const Excerpt &of, float *out, State &state) {
    const int64_t columns = held.shape.columns, half = columns / 2, bytes = bytes_of(half, 2);
    state.tile.resize(of.rows * half + 8);
    const float *values = state.tile.data();
    decode_run(held.values, of.row, of.rows, state.tile.data(), state.inner(0));
    const uint8_t *positions = held.positions + of.row * bytes;
    const int64_t eights = columns / 8;
    for (int64_t i = 0; i < of.rows; i++, positions += bytes, values += half, out += columns) {
        loops->spread_fours(positions, values, eights, out);
        if (columns % 8 == 0) continue;
        float *last = out + 8 * eights;
        std::fill_n(last, 4, 0.0f);
        last[positions[eights] & 3] = values[4 * eights];
        last[positions[eights] >> 2 & 3] = values[4 * eights + 1];
    }
}

// Kept values of all rows first, from an eighth place on.
void decode_kept(const Bitmask &held, const Excerpt &of, float *out, State &state) {
    const int64_t columns = held.shape.columns, bytes = bytes_of(columns, 1);
    const uint8_t *mask = held.mask + of.row * bytes;
    if (of.row != state.row + 1) state.passed = loops->ones(held.mask, of.row * bytes);
    const int64_t kept = loops->ones(mask, of.rows * bytes), before = state.passed % 8;
    state.tile.resize(before + kept + 16);
    const float *values = state.tile.data() + before;
    if (kept)
        decode_excerpt(held.values, {0, 1, state.passed - before, before + kept}, state.tile.data(),
                       state.inner(0));
    for (int64_t i = 0; i < of.rows; i++, mask += bytes, out += columns)
        values = spread_row(mask, values, columns, out);
    state.passed += kept;
    state.row = of.row + of.rows - 1;
}

// Rows of either kind first.
void decode_parted(const MixedRows &mixed, const Excerpt &of, float *out, State &state) {
    const int64_t before = ones_before(mixed.mask, of.row);
    const int64_t fine = ones_before(mixed.mask, of.row + of.rows) - before;
    state.tile.resize(of.rows * of.count);
    float *next[2] = {state.tile.data() + fine * of.count, state.tile.data()};
    decode_excerpt(mixed.fine, {before, fine, of.column, of.count}, next[1], state.inner(0));
    decode_excerpt(mixed.coarse, {of.row - before, of.rows - fine, of.column, of.count}, next[0],
                   state.inner(1));
    for (int64_t i = 0; i < of.rows; i++, out += of.count) {
        float *&from = next[bit_of(mixed.mask, of.row + i)];
        std::copy_n(from, of.count, out);
        from += of.count;
    }
}

void decode_turned(const IntegerGroups &held, const Excerpt &of, float *out, State &state) {
    CodeBlock codes = take_block(held, {of.column, of.count, of.row, of.rows}, state.inner(0));
    const int64_t rows = codes.rows, groups = codes.groups;
    state.tile_first = -1;  // no rows are there now
    state.tile.resize(2 * rows * groups + 8);
    float *factors = state.tile.data(), *offsets = factors + rows * groups;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t group = 0; group < groups; group++) {
            factors[group * rows + row] = codes.factors[row * groups + group];
            offsets[group * rows + row] = codes.offsets[row * groups + group];
        }
    codes.factors = factors, codes.offsets = offsets;
    loops->write_turned[planes_of(held.codes)](codes, out);
}

}  // namespace

void decode_worth(const IntegerGroups &held, const Excerpt &of, float *scales, float *shifts,
                  State &state) {
    const int64_t size = of.rows * of.count;
    decode_excerpt(held.scales, of, scales, state_of(held.scales, state, 0));
    if (held.unit != 1) loops->scale_by(scales, held.unit, size);
    if (planes_of(held.zero_points)) {
        decode_codes(held.zero_points, held.scales->columns, of, shifts);
        for (int64_t i = 0; i < size; i++) shifts[i] *= -scales[i];
        return;
    }
    if (held.offsets)
        decode_excerpt(held.offsets, of, shifts, state_of(held.offsets, state, 1));
    else
        std::fill_n(shifts, size, 0.0f);
    loops->combine(shifts, scales, -held.middle, size);
}

void decode_codes(const Codes &codes, int64_t columns, const Excerpt &of, float *out) {
    const float one = 1, none = 0;  // of all rows
    CodeBlock block = {{}, {}, columns, of.rows, of.column, of.count, (columns + 7) / 8 * 8,
                       0,  0,  &one,    &none};
    place_lines(block, codes, of.row);
    loops->write_block[planes_of(codes)](block, out);
}

void decode_excerpt(const Packed *matrix, const Excerpt &of, float *out, State &state) {
    const int64_t columns = matrix->columns, count = of.count;
    const bool whole = count == columns;
    if (!count || !of.rows) return;  // a part that holds nothing has no group
    if (matrix->decode == decode_entropy && whole) {
        decode(matrix, of.row, 0, of.rows * columns, out, state);
    } else if (matrix->decode == decode_bfloat16 && whole) {
        loops->widen(static_cast<const uint16_t *>(as<DenseRows>(matrix).numbers) +
                         of.row * columns,
                     of.rows * columns, out);
    } else if (whole && are_bytes(matrix)) {
        const IntegerGroups &held = as<IntegerGroups>(matrix);
        state.tile.resize(of.rows);
        decode_excerpt(held.scales, {of.row, of.rows, 0, 1}, state.tile.data(), state.inner(0));
        scale(Lines(held.codes, 0, columns), of.row * columns, of.rows * columns, held.middle,
              1, 0, out);
        for (int64_t i = 0; i < of.rows; i++)
            for (int64_t k = 0; k < columns; k++) out[i * columns + k] *= state.tile[i] * held.unit;
    } else if (has_blocks(matrix)) {
        const IntegerGroups &held = as<IntegerGroups>(matrix);
        loops->write_block[planes_of(held.codes)](take_block(held, of, state), out);
    } else if (matrix->decode == decode_transposed && has_blocks(as<Transposed>(matrix).held)) {
        decode_turned(as<IntegerGroups>(as<Transposed>(matrix).held), of, out, state);
    } else if (has_entries(matrix, of.column)) {
        decode_entries(as<Codebook>(matrix), of, out, state);
    } else if (matrix->decode == decode_two_of_four && whole) {
        decode_fours(as<TwoOfFour>(matrix), of, out, state);
    } else if (matrix->decode == decode_bitmask && whole) {
        decode_kept(as<Bitmask>(matrix), of, out, state);
    } else if (matrix->decode == decode_mixed && of.rows > 1) {
        decode_parted(as<MixedRows>(matrix), of, out, state);
    } else {
        for (int64_t i = 0; i < of.rows; i++)
            decode(matrix, of.row + i, of.column, count, out + i * count, state);
    }
}

extern "C" {

void decode_integers(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &state) {
    if (has_blocks(matrix)) {
        decode_excerpt(matrix, {row, 1, column, count}, out, state);
        return;
    }
    const IntegerGroups &held = as<IntegerGroups>(matrix);
    const int64_t first = column / held.group_size;
    const int64_t last = (column + count - 1) / held.group_size + 1;
    const GroupValues scales(held.scales, row, first, last, state.inner(0));
    std::optional<GroupValues> offsets;
    if (held.offsets) offsets.emplace(held.offsets, row, first, last, state.inner(1));
    const Lines lines(held.codes, row, matrix->columns);
    const Lines zeros(held.zero_points, row, held.scales->columns);
    for (int64_t done = 0; done < count;) {
        const int64_t group = (column + done) / held.group_size;
        const int64_t end = std::min(count, (group + 1) * held.group_size - column);
        const float factor = scales[group] * held.unit;
        float offset = offsets ? (*offsets)[group] : 0;
        if (zeros.planes) offset = (held.middle - zeros.code(group)) * factor;
        scale(lines, column + done, end - done, held.middle, factor, offset, out + done);
        done = end;
    }
}
}
