// How each format writes a part of a row in float32.
#include "decode.h"

#include <cstring>

#include "bfloat16.h"

namespace {

constexpr int64_t TILE = 64;  // rows of a transposed matrix that are decoded together

template <int64_t LENGTH>
void copy_vectors(const float *table, const uint32_t *codes, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++)
        std::memcpy(out + i * LENGTH, table + codes[i] * LENGTH, LENGTH * sizeof(float));
}

// A part of a row that can be written whole alone: in place where all of it is wanted.
void by_whole_row(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    if (count == matrix->columns) {
        decode_run(matrix, row, 1, out, state);
        return;
    }
    std::vector<float> whole(matrix->columns);
    decode_run(matrix, row, 1, whole.data(), state);
    std::copy_n(whole.data() + column, count, out);
}

}  // namespace

extern "C" {

void decode_float32(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &) {
    const float *numbers = static_cast<const float *>(
        reinterpret_cast<const DenseRows *>(matrix)->numbers);
    std::memcpy(out, numbers + row * matrix->columns + column, count * sizeof(float));
}

void decode_bfloat16(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &) {
    const uint16_t *numbers = static_cast<const uint16_t *>(
        reinterpret_cast<const DenseRows *>(matrix)->numbers);
    const uint16_t *from = numbers + row * matrix->columns + column;
    if (count == 1)
        *out = widened(*from);
    else
        loops->widen(from, count, out);
}

void decode_codebook(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &state) {
    const Codebook &held = *reinterpret_cast<const Codebook *>(matrix);
    const int64_t length = held.dimension, entries = matrix->columns / length;
    float own[PART];
    const float *table = held.table;
    if (held.rows) loops->widen(held.rows + row * held.size, held.size, own), table = own;
    if (!held.rows && length == 1) std::copy_n(held.table, held.size, own), table = own;
    uint32_t codes[PART];
    const int64_t last = (column + count - 1) / length;
    for (int64_t first = column / length; first <= last; first += PART) {
        const int64_t part = std::min(PART, last - first + 1);
        unpack(Lines(held.codes, row, entries), first, part, codes);
        if (length == 1) {
            loops->look_up(codes, table, held.size, part, out + first - column);
            continue;
        }
        const int64_t at = first * length - column;
        const bool whole = at >= 0 && at + part * length <= count;
        if (whole && length == 2)
            copy_vectors<2>(table, codes, part, out + at);
        else if (whole && length == 4)
            copy_vectors<4>(table, codes, part, out + at);
        else if (whole && length == 8)
            copy_vectors<8>(table, codes, part, out + at);
        else
            for (int64_t k = std::max<int64_t>(0, -at); k < part * length && at + k < count; k++)
                out[at + k] = table[codes[k / length] * length + k % length];
    }
    if (!held.scales) return;
    const GroupValues scales(held.scales, row, column / held.group_size,
                             (column + count - 1) / held.group_size + 1, state.inner(0));
    for (int64_t done = 0; done < count;) {
        const int64_t group = (column + done) / held.group_size;
        const int64_t end = std::min(count, (group + 1) * held.group_size - column);
        loops->scale_by(out + done, scales[group], end - done);
        done = end;
    }
}

void decode_binary(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                   State &state) {
    const BinaryCodes &held = *reinterpret_cast<const BinaryCodes *>(matrix);
    const int64_t bytes = bytes_of(matrix->columns, 1), size = held.group_size;
    const int64_t first = column / size, end = (column + count - 1) / size + 1;
    for (int64_t plane = held.planes; plane >= 0; plane--) {
        const int64_t at = plane * matrix->rows + row;
        const GroupValues worth(held.worth, at, first, end, state.inner(0));
        const uint8_t *line = held.signs + at * bytes;
        for (int64_t k = 0; k < count; k++) {
            const float value = worth[(column + k) / size];
            if (plane == held.planes)
                out[k] = value;
            else
                out[k] += bit_of(line, column + k) ? value : -value;
        }
    }
}

void decode_bitmask(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &state) {
    by_whole_row(matrix, row, column, count, out, state);
}

void decode_two_of_four(const Packed *matrix, int64_t row, int64_t column, int64_t count,
                        float *out, State &state) {
    by_whole_row(matrix, row, column, count, out, state);
}

void decode_columns(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &state) {
    const SplitColumns &held = *reinterpret_cast<const SplitColumns *>(matrix);
    const int64_t apart = held.fine->columns, others = held.coarse->columns;
    state.tile.resize(apart + others);
    const float *fine = state.tile.data(), *coarse = fine + apart;
    decode(held.fine, row, 0, apart, state.tile.data(), state.inner(0));
    decode(held.coarse, row, 0, others, state.tile.data() + apart, state.inner(1));
    const uint16_t *scale = held.scales;
    for (int64_t k = 0; k < column + count; k++) {
        const float value = bit_of(held.mask, k) ? *fine++ : *coarse++ * widened(*scale++);
        if (k >= column) out[k - column] = value;
    }
}

void decode_transposed(const Packed *matrix, int64_t row, int64_t column, int64_t count,
                       float *out, State &state) {
    const Packed *held = reinterpret_cast<const Transposed *>(matrix)->held;
    const int64_t columns = matrix->columns;
    if (state.tile_first < 0 || row < state.tile_first || row >= state.tile_first + TILE) {
        state.tile_first = row / TILE * TILE;
        state.tile.resize(TILE * columns);
        const int64_t several = std::min(TILE, matrix->rows - state.tile_first);
        float line[TILE];
        for (int64_t k = 0; k < columns; k++) {
            decode(held, k, state.tile_first, several, line, state.inner(0));
            for (int64_t i = 0; i < several; i++) state.tile[i * columns + k] = line[i];
        }
    }
    std::memcpy(out, state.tile.data() + (row - state.tile_first) * columns + column,
                count * sizeof(float));
}

void decode_sum(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                State &state) {
    const SumOfTwo &held = *reinterpret_cast<const SumOfTwo *>(matrix);
    decode(held.first, row, column, count, out, state.inner(0));
    state.tile.resize(count);
    decode(held.second, row, column, count, state.tile.data(), state.inner(1));
    loops->combine(out, state.tile.data(), 1, count);
}

void decode_mixed(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    const RowOf found(*reinterpret_cast<const MixedRows *>(matrix), row, state);
    decode(found.held, found.row, column, count, out, *found.state);
}
}
