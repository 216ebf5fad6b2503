// How each format writes its rows, and the one product of all of them.
#include "packed.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "clones.h"

// What decoding remembers between two rows of one matrix, and of the matrices inside it.
struct State {
    int64_t row = -1, passed = 0;      // the last row, and the entries held before the next
    std::vector<uint16_t> table;       // of an entropy code: 256 * length + symbol by 12 bits
    std::vector<float> tile;           // of a transposed matrix: some of its rows
    int64_t tile_first = -1;
    std::unique_ptr<State> inside[2];

    State &inner(int which) {
        if (!inside[which]) inside[which] = std::make_unique<State>();
        return *inside[which];
    }
};

namespace {

constexpr int64_t LANE = 64, LANES_A_BASE = 64, LONGEST = 12;
constexpr int64_t TILE = 64;        // rows of a transposed matrix that are decoded together
constexpr int64_t PART = 256;       // codes that are unpacked together
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
            State &state) {
    matrix->decode(matrix, row, column, count, out, state);
}

// A whole row of something small that belongs to a row, such as its scales.
class SmallRow {
  public:
    const float *read(const Packed *matrix, int64_t row, State &state) {
        float *room = near_;
        if (matrix->columns > PART) {
            far_.resize(matrix->columns);
            room = far_.data();
        }
        decode(matrix, row, 0, matrix->columns, room, state);
        return room;
    }

  private:
    float near_[PART];
    std::vector<float> far_;
};

int64_t ones(const uint8_t *bytes, int64_t count) {
    int64_t found = 0, done = 0;
    for (; done + 8 <= count; done += 8) {
        uint64_t word;
        __builtin_memcpy(&word, bytes + done, 8);
        found += __builtin_popcountll(word);
    }
    for (; done < count; done++) found += __builtin_popcount(bytes[done]);
    return found;
}

uint32_t bit_of(const uint8_t *bytes, int64_t place) { return (bytes[place / 8] >> place % 8) & 1; }

// Where the kept entries of eight columns lie, by the byte of their mask.
struct Spread {
    Eight place[256], kept[256];

    Spread() {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t next = 0;
            for (int bit = 0; bit < 8; bit++) {
                const bool there = (byte >> bit) & 1;
                place[byte][bit] = there ? next++ : 0;
                kept[byte][bit] = there ? ~0u : 0;
            }
        }
    }
};

const Spread SPREAD;

// `values` can be read for eight entries beyond those that are kept.
CLONES const float *spread(const uint8_t *mask, const float *values, int64_t bytes, float *out) {
    for (int64_t byte = 0; byte < bytes; byte++) {
        EightFloats next;
        __builtin_memcpy(&next, values, 32);
        const Eight places = SPREAD.place[mask[byte]];
        Eight found = (Eight)__builtin_shuffle(next, places) & SPREAD.kept[mask[byte]];
        __builtin_memcpy(out + 8 * byte, &found, 32);
        values += __builtin_popcount(mask[byte]);
    }
    return values;
}

// Multiplies a line by an activation and returns the sum.
CLONES float product_in_place(float *line, const float *x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < count; k++) {
        line[k] *= x[k];
        sum += line[k];
    }
    return sum;
}

// Sum of the values that a mask marks.
CLONES float marked(const uint8_t *mask, const float *values, int64_t count) {
    EightFloats sums = {};
    for (int64_t byte = 0; byte < count / 8; byte++) {
        EightFloats next;
        __builtin_memcpy(&next, values + 8 * byte, 32);
        const Eight word = Eight{} + mask[byte], bits = {1, 2, 4, 8, 16, 32, 64, 128};
        sums += (EightFloats)((Eight)next & (Eight)((word & bits) != 0));
    }
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += sums[i];
    for (int64_t k = count / 8 * 8; k < count; k++)
        if (bit_of(mask, k)) sum += values[k];
    return sum;
}

CLONES void look_up(const uint32_t *codes, const float *table, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = table[codes[i]];
}

CLONES void scale_by(float *values, float scale, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] *= scale;
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
        widen(from, count, out);
}

void decode_integers(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &state) {
    const IntegerGroups &held = *reinterpret_cast<const IntegerGroups *>(matrix);
    SmallRow scale_row, offset_row;
    uint32_t codes[PART];
    const float *scales = scale_row.read(held.scales, row, state.inner(0));
    const float *offsets =
        held.offsets ? offset_row.read(held.offsets, row, state.inner(1)) : nullptr;
    for (int64_t done = 0; done < count;) {
        const int64_t part = std::min(PART, count - done);
        unpack(held.codes, row, matrix->columns, column + done, part, codes);
        for (int64_t at = 0; at < part;) {
            const int64_t group = (column + done + at) / held.group_size;
            const int64_t end =
                std::min(part, (group + 1) * held.group_size - column - done);
            const float scale = scales[group];
            float offset = offsets ? offsets[group] : 0;
            if (held.has_zero_points) {
                const uint32_t zero = code_at(held.zero_points, row, held.scales->columns, group);
                offset = (held.middle - static_cast<float>(zero)) * scale;
            }
            scale_codes(codes + at, held.middle, scale, offset, end - at, out + done + at);
            at = end;
        }
        done += part;
    }
}

void decode_codebook(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &state) {
    const Codebook &held = *reinterpret_cast<const Codebook *>(matrix);
    const int64_t length = held.dimension, entries = matrix->columns / length;
    float own[256];
    const float *table = held.table;
    if (held.rows) {
        widen(held.rows + row * held.size, held.size, own);
        table = own;
    }
    uint32_t codes[PART];
    const int64_t last = (column + count - 1) / length;
    for (int64_t first = column / length; first <= last; first += PART) {
        const int64_t part = std::min(PART, last - first + 1);
        unpack(held.codes, row, entries, first, part, codes);
        if (length == 1) {
            look_up(codes, table, part, out + first - column);
            continue;
        }
        for (int64_t i = 0; i < part; i++)
            for (int64_t j = 0; j < length; j++) {
                const int64_t at = (first + i) * length + j - column;
                if (at >= 0 && at < count) out[at] = table[codes[i] * length + j];
            }
    }
    if (!held.scales) return;
    SmallRow room;
    const float *scales = room.read(held.scales, row, state.inner(0));
    for (int64_t done = 0; done < count;) {
        const int64_t group = (column + done) / held.group_size;
        const int64_t end = std::min(count, (group + 1) * held.group_size - column);
        scale_by(out + done, scales[group], end - done);
        done = end;
    }
}

// Whole rows only.
void decode_bitmask(const Packed *matrix, int64_t row, int64_t, int64_t count, float *out,
                    State &state) {
    const Bitmask &held = *reinterpret_cast<const Bitmask *>(matrix);
    const int64_t bytes = bytes_of(matrix->columns, 1);
    const uint8_t *line = held.mask + row * bytes;
    if (row != state.row + 1) state.passed = ones(held.mask, row * bytes);
    const int64_t kept = ones(line, bytes);
    state.tile.resize(count + 8);
    float *values = state.tile.data();
    if (kept) decode(held.values, 0, state.passed, kept, values, state.inner(0));
    state.passed += kept;
    state.row = row;
    const float *next = spread(line, values, count / 8, out);
    for (int64_t k = count / 8 * 8; k < count; k++) out[k] = bit_of(line, k) ? *next++ : 0.0f;
}

// Whole rows only.
void decode_two_of_four(const Packed *matrix, int64_t row, int64_t, int64_t count, float *out,
                        State &state) {
    const TwoOfFour &held = *reinterpret_cast<const TwoOfFour *>(matrix);
    const uint8_t *line = held.positions + row * bytes_of(count / 2, 2);
    state.tile.resize(count / 2);
    float *values = state.tile.data();
    decode(held.values, row, 0, count / 2, values, state.inner(0));
    std::fill_n(out, count, 0.0f);
    for (int64_t four = 0; four < count / 4; four++) {
        const uint32_t both = line[four / 2] >> (four % 2 * 4);
        out[4 * four + (both & 3)] = values[2 * four];
        out[4 * four + (both >> 2 & 3)] = values[2 * four + 1];
    }
}

void decode_signs(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    const SignBlock &held = *reinterpret_cast<const SignBlock *>(matrix);
    const uint8_t *line = held.signs + row * bytes_of(matrix->columns, 1);
    SmallRow room;
    const float *left = room.read(held.left, row, state.inner(0));
    state.tile.resize(count);
    std::fill_n(out, count, 0.0f);
    for (int64_t rank = 0; rank < held.left->columns; rank++) {
        decode(held.right, rank, column, count, state.tile.data(), state.inner(1));
        combine(out, state.tile.data(), left[rank], count);
    }
    for (int64_t k = 0; k < count; k++)
        if (!bit_of(line, column + k)) out[k] = -out[k];
}

void make_table(const EntropyCoded &held, std::vector<uint16_t> &table) {
    table.assign(1 << LONGEST, 256);
    int64_t filled = 0;
    for (int64_t length = 1; length <= LONGEST; length++)
        for (int64_t symbol = 0; symbol < held.symbols; symbol++)
            if (held.lengths[symbol] == length) {
                const int64_t share = int64_t{1} << (LONGEST - length);
                std::fill_n(table.data() + filled, share,
                            static_cast<uint16_t>(256 * length + symbol));
                filled += share;
            }
}

// The 64 symbols of a lane; four codes at most lie in the bits that one read brings.
void read_lane(const EntropyCoded &held, const uint16_t *table, int64_t lane, uint8_t *symbols) {
    int64_t bit = held.bases[lane / LANES_A_BASE] + held.starts[lane];
    for (int64_t place = 0; place < LANE; place += 4) {
        uint64_t window;
        __builtin_memcpy(&window, held.stream + bit / 8, 8);
        window = __builtin_bswap64(window) << bit % 8;
        for (int64_t i = 0; i < 4; i++) {
            const uint16_t found = table[window >> (64 - LONGEST)];
            symbols[place + i] = static_cast<uint8_t>(found);
            window <<= found >> 8;
            bit += found >> 8;
        }
    }
}

CLONES void join(const uint8_t *rest, const uint8_t *symbols, uint32_t first, int64_t count,
                 float *out) {
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = static_cast<uint32_t>(rest[i] & 0x80) << 24 |
                              (symbols[i] + first) << 23 |
                              static_cast<uint32_t>(rest[i] & 0x7F) << 16;
        __builtin_memcpy(out + i, &bits, 4);
    }
}

void decode_entropy(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &state) {
    const EntropyCoded &held = *reinterpret_cast<const EntropyCoded *>(matrix);
    if (state.table.empty()) make_table(held, state.table);
    const int64_t start = row * matrix->columns + column, end = start + count;
    uint8_t symbols[LANE];
    for (int64_t lane = start / LANE; lane * LANE < end; lane++) {
        read_lane(held, state.table.data(), lane, symbols);
        const int64_t from = std::max(start, lane * LANE), to = std::min(end, (lane + 1) * LANE);
        join(held.rest + from, symbols + (from - lane * LANE), static_cast<uint32_t>(held.first),
             to - from, out + from - start);
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

void decode_mixed(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    const MixedRows &held = *reinterpret_cast<const MixedRows *>(matrix);
    if (row != state.row + 1) {
        state.passed = ones(held.mask, row / 8);
        for (int64_t before = row / 8 * 8; before < row; before++)
            state.passed += bit_of(held.mask, before);
    }
    const bool fine = bit_of(held.mask, row);
    decode(fine ? held.fine : held.coarse, fine ? state.passed : row - state.passed, column, count,
           out, state.inner(fine ? 0 : 1));
    state.passed += fine;
    state.row = row;
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
        for (int64_t row = first; row < end; row += BLOCK) {
            const int64_t several = std::min(BLOCK, end - row);
            for (int64_t i = 0; i < several; i++)
                decode(matrix, row + i, 0, columns, decoded.data() + i * columns, state);
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
        for (int64_t row = first; row < end; row++)
            decode(matrix, row, 0, columns, out + row * columns, state);
    }
}

void decode_some(const Packed *matrix, const int64_t *places, int64_t count, float *out) {
    State state;
    for (int64_t i = 0; i < count; i++)
        decode(matrix, places[i], 0, matrix->columns, out + i * matrix->columns, state);
}

void multiply_packed(const void *matrix, const float *x, float *y) {
    multiply_many(static_cast<const Packed *>(matrix), x, 1, y);
}

// By the factors: sums of the activation times a right factor, with the signs of each row.
void multiply_signs(const void *matrix, const float *x, float *y) {
    const SignBlock &held = *static_cast<const SignBlock *>(matrix);
    const int64_t rows = held.shape.rows, columns = held.shape.columns, ranks = held.left->columns;
    std::vector<float> scaled(ranks * columns), left(rows * ranks), whole(ranks);
    State states[2];
    for (int64_t row = 0; row < rows; row++)
        decode(held.left, row, 0, ranks, left.data() + row * ranks, states[0]);
    for (int64_t rank = 0; rank < ranks; rank++) {
        float *line = scaled.data() + rank * columns;
        decode(held.right, rank, 0, columns, line, states[1]);
        whole[rank] = product_in_place(line, x, columns);
    }
    const int64_t pieces = rows * columns >= ALONE ? 16 : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++)
        for (int64_t row = rows * piece / pieces; row < rows * (piece + 1) / pieces; row++) {
            const uint8_t *line = held.signs + row * bytes_of(columns, 1);
            float sum = 0;
            for (int64_t rank = 0; rank < ranks; rank++) {
                const float positive = marked(line, scaled.data() + rank * columns, columns);
                sum += left[row * ranks + rank] * (2 * positive - whole[rank]);
            }
            y[row] = sum;
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
