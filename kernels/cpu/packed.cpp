// How each format writes its rows, and the one product of all of them.
#include "packed.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "clones.h"

namespace {

constexpr int64_t LANE = 64, LANES_A_BASE = 64, LONGEST = 12;
constexpr int64_t BLOCK = 4;         // rows that are decoded and multiplied together
constexpr int64_t ALONE = 1 << 15;   // numbers of a matrix below which a second thread costs more

float widened(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

int64_t bytes_of(int64_t columns, int64_t width) { return (columns * width + 7) / 8; }

uint32_t code_at(const Codes &codes, int64_t row, int64_t columns, int64_t column) {
    uint32_t code = 0, shift = 0;
    for (int plane = 0; plane < 4; plane++) {
        if (!codes.planes[plane]) continue;
        const int64_t width = 1 << plane, bit = column * width;
        const uint8_t byte = codes.planes[plane][row * bytes_of(columns, width) + bit / 8];
        code |= ((byte >> (bit % 8)) & ((1u << width) - 1)) << shift;
        shift += width;
    }
    return code;
}

typedef uint32_t Eight __attribute__((vector_size(32)));
typedef int32_t EightSigned __attribute__((vector_size(32)));
typedef float EightFloats __attribute__((vector_size(32)));

// Adds eight codes of one plane, from a column that eight divides, above the bits there are.
template <int WIDTH>
inline __attribute__((always_inline)) void add_eight(const uint8_t *line, int64_t column,
                                                     uint32_t shift, Eight &codes) {
    const uint8_t *at = line + column * WIDTH / 8;
    if (WIDTH == 8) {
        Eight found = {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]};
        codes |= found << shift;
        return;
    }
    uint32_t word = 0;
    __builtin_memcpy(&word, at, WIDTH);
    const Eight turns = {0, WIDTH, 2 * WIDTH, 3 * WIDTH, 4 * WIDTH, 5 * WIDTH, 6 * WIDTH, 7 * WIDTH};
    const Eight words = {word, word, word, word, word, word, word, word};
    codes |= ((words >> turns) & ((1u << (WIDTH & 7)) - 1)) << shift;
}

// Codes of a part of a row, as they are.
CLONES void unpack(const Codes &codes, int64_t row, int64_t columns, int64_t column, int64_t count,
                   uint32_t *out) {
    const uint8_t *lines[4];
    for (int plane = 0; plane < 4; plane++)
        lines[plane] = codes.planes[plane]
                           ? codes.planes[plane] + row * bytes_of(columns, 1 << plane)
                           : nullptr;
    int64_t done = 0;
    for (; done < count && (column + done) % 8; done++)
        out[done] = code_at(codes, row, columns, column + done);
    for (; done + 8 <= count; done += 8) {
        Eight found = {};
        uint32_t shift = 0;
        if (lines[0]) add_eight<1>(lines[0], column + done, shift, found), shift += 1;
        if (lines[1]) add_eight<2>(lines[1], column + done, shift, found), shift += 2;
        if (lines[2]) add_eight<4>(lines[2], column + done, shift, found), shift += 4;
        if (lines[3]) add_eight<8>(lines[3], column + done, shift, found);
        __builtin_memcpy(out + done, &found, 32);
    }
    for (; done < count; done++) out[done] = code_at(codes, row, columns, column + done);
}

void decode(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
            State *state) {
    matrix->decode(matrix, row, column, count, out, state);
}

// A whole row of something small that belongs to a row, such as its scales.
const float *whole_row(const Packed *matrix, int64_t row, std::vector<float> &room) {
    room.resize(matrix->columns);
    decode(matrix, row, 0, matrix->columns, room.data(), nullptr);
    return room.data();
}

CLONES void scale_codes(const uint32_t *codes, float middle, float scale, float offset,
                        int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++)
        out[i] = (static_cast<float>(static_cast<int32_t>(codes[i])) - middle) * scale + offset;
}

CLONES void widen(const uint16_t *from, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = widened(from[i]);
}

CLONES void combine(float *out, const float *line, float factor, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] += factor * line[i];
}

CLONES void dots(const float *rows, int64_t count, const float *x, int64_t columns, float *y) {
    const float *a = rows, *b = a + (count > 1 ? columns : 0), *c = a + (count > 2 ? 2 * columns : 0),
                *d = a + (count > 3 ? 3 * columns : 0);
    float first = 0, second = 0, third = 0, fourth = 0;
#pragma omp simd reduction(+ : first, second, third, fourth)
    for (int64_t k = 0; k < columns; k++) {
        first += a[k] * x[k];
        second += b[k] * x[k];
        third += c[k] * x[k];
        fourth += d[k] * x[k];
    }
    const float found[BLOCK] = {first, second, third, fourth};
    for (int64_t row = 0; row < count; row++) y[row] = found[row];
}

}  // namespace

extern "C" {

void decode_float32(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State *) {
    const float *numbers = static_cast<const float *>(
        reinterpret_cast<const DenseRows *>(matrix)->numbers);
    std::memcpy(out, numbers + row * matrix->columns + column, count * sizeof(float));
}

void decode_bfloat16(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State *) {
    const uint16_t *numbers = static_cast<const uint16_t *>(
        reinterpret_cast<const DenseRows *>(matrix)->numbers);
    widen(numbers + row * matrix->columns + column, count, out);
}

void decode_integers(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State *) {
    const IntegerGroups &held = *reinterpret_cast<const IntegerGroups *>(matrix);
    std::vector<float> scale_room, offset_room;
    std::vector<uint32_t> codes(count);
    const float *scales = whole_row(held.scales, row, scale_room);
    const float *offsets = held.offsets ? whole_row(held.offsets, row, offset_room) : nullptr;
    unpack(held.codes, row, matrix->columns, column, count, codes.data());
    for (int64_t done = 0; done < count;) {
        const int64_t group = (column + done) / held.group_size;
        const int64_t end = std::min(count, (group + 1) * held.group_size - column);
        const float scale = scales[group];
        float offset = offsets ? offsets[group] : 0;
        if (held.has_zero_points) {
            const uint32_t zero = code_at(held.zero_points, row, held.scales->columns, group);
            offset = (held.middle - static_cast<float>(zero)) * scale;
        }
        scale_codes(codes.data() + done, held.middle, scale, offset, end - done, out + done);
        done = end;
    }
}

void decode_codebook(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State *) {
    const Codebook &held = *reinterpret_cast<const Codebook *>(matrix);
    const int64_t length = held.dimension;
    const int64_t first = column / length, last = (column + count - 1) / length;
    std::vector<uint32_t> codes(last - first + 1);
    unpack(held.codes, row, matrix->columns / length, first, last - first + 1, codes.data());
    std::vector<float> own;
    const float *table = held.table;
    if (held.rows) {
        own.resize(held.size * length);
        widen(held.rows + row * held.size, held.size, own.data());
        table = own.data();
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = column + i;
        out[i] = table[codes[at / length - first] * length + at % length];
    }
    if (!held.scales) return;
    std::vector<float> room;
    const float *scales = whole_row(held.scales, row, room);
    for (int64_t i = 0; i < count; i++) out[i] *= scales[(column + i) / held.group_size];
}

void prepare_bitmask(const Packed *matrix, int64_t row, State *state) {
    const Bitmask &held = *reinterpret_cast<const Bitmask *>(matrix);
    const int64_t bytes = row * bytes_of(matrix->columns, 1);
    int64_t passed = 0, done = 0;
    for (; done + 8 <= bytes; done += 8) {
        uint64_t word;
        __builtin_memcpy(&word, held.mask + done, 8);
        passed += __builtin_popcountll(word);
    }
    for (; done < bytes; done++) passed += __builtin_popcount(held.mask[done]);
    state->passed = passed;
}

void decode_bitmask(const Packed *matrix, int64_t row, int64_t, int64_t count, float *out,
                    State *state) {
    const Bitmask &held = *reinterpret_cast<const Bitmask *>(matrix);
    const uint8_t *line = held.mask + row * bytes_of(matrix->columns, 1);
    std::vector<float> values(count);
    int64_t kept = 0;
    for (int64_t byte = 0; byte < bytes_of(count, 1); byte++)
        kept += __builtin_popcount(line[byte]);
    if (kept) decode(held.values, 0, state->passed, kept, values.data(), nullptr);
    const float *next = values.data();
    for (int64_t k = 0; k < count; k++) {
        const uint32_t bit = (line[k / 8] >> (k % 8)) & 1;
        out[k] = bit ? *next : 0.0f;
        next += bit;
    }
    state->passed += kept;
}

void decode_two_of_four(const Packed *matrix, int64_t row, int64_t, int64_t count, float *out,
                        State *) {
    const TwoOfFour &held = *reinterpret_cast<const TwoOfFour *>(matrix);
    const uint8_t *line = held.positions + row * bytes_of(count / 2, 2);
    std::vector<float> values(count / 2);
    decode(held.values, row, 0, count / 2, values.data(), nullptr);
    std::fill_n(out, count, 0.0f);
    for (int64_t i = 0; i < count / 2; i++)
        out[i / 2 * 4 + ((line[i / 4] >> (i % 4 * 2)) & 3)] = values[i];
}

void decode_signs(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State *) {
    const SignBlock &held = *reinterpret_cast<const SignBlock *>(matrix);
    const uint8_t *line = held.signs + row * bytes_of(matrix->columns, 1);
    std::vector<float> room, sizes(count);
    const float *left = whole_row(held.left, row, room);
    std::fill_n(out, count, 0.0f);
    for (int64_t rank = 0; rank < held.left->columns; rank++) {
        decode(held.right, rank, column, count, sizes.data(), nullptr);
        combine(out, sizes.data(), left[rank], count);
    }
    for (int64_t k = 0; k < count; k++)
        if (!((line[(column + k) / 8] >> ((column + k) % 8)) & 1)) out[k] = -out[k];
}

void prepare_entropy(const Packed *matrix, int64_t, State *state) {
    const EntropyCoded &held = *reinterpret_cast<const EntropyCoded *>(matrix);
    std::fill_n(state->table, 4096, static_cast<uint16_t>(256));
    int64_t filled = 0;
    for (int64_t length = 1; length <= LONGEST; length++)
        for (int64_t symbol = 0; symbol < held.symbols; symbol++)
            if (held.lengths[symbol] == length) {
                const int64_t share = int64_t{1} << (LONGEST - length);
                std::fill_n(state->table + filled, share,
                            static_cast<uint16_t>(256 * length + symbol));
                filled += share;
            }
}

void decode_entropy(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State *state) {
    const EntropyCoded &held = *reinterpret_cast<const EntropyCoded *>(matrix);
    const int64_t start = row * matrix->columns + column, end = start + count;
    for (int64_t lane = start / LANE; lane * LANE < end; lane++) {
        int64_t bit = held.bases[lane / LANES_A_BASE] + held.starts[lane];
        const int64_t last = std::min(end - lane * LANE, LANE);
        for (int64_t place = 0; place < last; place++) {
            const uint8_t *at = held.stream + bit / 8;
            const uint32_t three = at[0] << 16 | at[1] << 8 | at[2];
            const uint16_t found = state->table[(three >> (LONGEST - bit % 8)) & 4095];
            bit += found >> 8;
            const int64_t flat = lane * LANE + place;
            if (flat < start) continue;
            const uint32_t rest = held.rest[flat], exponent = (found & 255) + held.first;
            out[flat - start] = widened(
                static_cast<uint16_t>((rest & 0x80) << 8 | exponent << 7 | (rest & 0x7F)));
        }
    }
}

// y[count, rows] = x[count, columns] W^T, the rows divided among threads.
void multiply_many(const Packed *matrix, const float *x, int64_t count, float *y) {
    const int64_t rows = matrix->rows, columns = matrix->columns;
    const int64_t pieces = rows * columns >= ALONE ? 16 : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = rows * piece / pieces, end = rows * (piece + 1) / pieces;
        std::vector<float> decoded(BLOCK * columns);
        State state;
        if (matrix->prepare && first < end) matrix->prepare(matrix, first, &state);
        for (int64_t row = first; row < end; row += BLOCK) {
            const int64_t several = std::min(BLOCK, end - row);
            for (int64_t i = 0; i < several; i++)
                decode(matrix, row + i, 0, columns, decoded.data() + i * columns, &state);
            for (int64_t one = 0; one < count; one++)
                dots(decoded.data(), several, x + one * columns, columns, y + one * rows + row);
        }
    }
}

void decode_all(const Packed *matrix, float *out) {
    const int64_t rows = matrix->rows, columns = matrix->columns;
    const int64_t pieces = rows * columns >= ALONE ? 16 : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = rows * piece / pieces, end = rows * (piece + 1) / pieces;
        State state;
        if (matrix->prepare && first < end) matrix->prepare(matrix, first, &state);
        for (int64_t row = first; row < end; row++)
            decode(matrix, row, 0, columns, out + row * columns, &state);
    }
}

void multiply_packed(const void *matrix, const float *x, float *y) {
    multiply_many(static_cast<const Packed *>(matrix), x, 1, y);
}

// y = W^T x, for a matrix that is held transposed.
void multiply_transposed(const void *matrix, const float *x, float *y) {
    const Packed &held = *static_cast<const Packed *>(matrix);
    std::vector<float> line(held.columns);
    State state;
    if (held.prepare) held.prepare(&held, 0, &state);
    std::fill_n(y, held.columns, 0.0f);
    for (int64_t row = 0; row < held.rows; row++) {
        decode(&held, row, 0, held.columns, line.data(), &state);
        combine(y, line.data(), x[row], held.columns);
    }
}

void multiply_outliers(const void *matrix, const float *x, float *y) {
    const Outliers &held = *static_cast<const Outliers *>(matrix);
    int32_t next = 0;
    for (int64_t row = 0; row < held.shape.rows; row++) {
        float sum = 0;
        for (; next < held.ends[row]; next++)
            sum += widened(held.values[next]) * x[held.positions[next]];
        y[row] = sum;
    }
}
}
