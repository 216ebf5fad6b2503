// How each format writes its rows, and the one product of all of them.
#include "packed.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "bfloat16.h"


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

// Where the kept entries of eight columns lie, by the byte of their mask.
struct Spread {
    uint32_t place[256][8], kept[256][8];

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

// Where the kept entries of two fours lie, by the byte of their positions.
struct Fours {
    uint32_t place[256][8], kept[256][8];

    Fours() {
        for (int byte = 0; byte < 256; byte++) {
            for (int column = 0; column < 8; column++)
                place[byte][column] = kept[byte][column] = 0;
            for (uint32_t value = 0; value < 4; value++) {
                const uint32_t column = value / 2 * 4 + (byte >> (2 * value) & 3);
                place[byte][column] = value;
                kept[byte][column] = ~0u;
            }
        }
    }
};

const Fours FOURS;

// The loops of one kind of processor; the first two by the planes that there are.
struct Loops {
    void (*unpack[16])(const uint8_t *const *, int64_t, int64_t, uint32_t *);
    void (*scaled[16])(const uint8_t *const *, int64_t, int64_t, float, float, float, float *);
    const float *(*spread)(const uint8_t *, const float *, int64_t, float *);
    void (*spread_fours)(const uint8_t *, const float *, int64_t, float *);
    float (*marked)(const uint8_t *, const float *, int64_t);
    void (*widen)(const uint16_t *, int64_t, float *);
    float (*product_in_place)(float *, const float *, int64_t);
    void (*look_up)(const uint32_t *, const float *, int64_t, int64_t, float *);
    void (*scale_by)(float *, float, int64_t);
    void (*combine)(float *, const float *, float, int64_t);
    void (*join)(const uint8_t *, const uint8_t *, uint32_t, int64_t, float *);
    void (*dots)(const float *, int64_t, const float *, int64_t, float *);
    void (*pairs_of_dots)(const float *, int64_t, const float *, int64_t, float *, int64_t);
};

namespace portable {
#include "loops.inl"
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEVERAL_KINDS
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
namespace avx2 {
#include "loops.inl"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt")
namespace avx512 {
#include "loops.inl"
}
#pragma GCC pop_options

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const Loops *best() {
    return has_avx512() ? &avx512::LOOPS : has_avx2() ? &avx2::LOOPS : &portable::LOOPS;
}
#else
const Loops *best() { return &portable::LOOPS; }
#endif

const Loops *loops = best();

constexpr int64_t LANE = 64, LANES_A_BASE = 64, LONGEST = 12;
constexpr int64_t TILE = 64;        // rows of a transposed matrix that are decoded together
constexpr int64_t PART = 256;       // numbers in a small room on the stack
constexpr int64_t BLOCK = 4;         // rows that are decoded and multiplied together
constexpr int64_t ALONE = 1 << 15;   // numbers of a matrix below which a second thread costs more

int64_t bytes_of(int64_t columns, int64_t width) { return (columns * width + 7) / 8; }

// The planes of a row, and which there are.
struct Lines {
    const uint8_t *of[4];
    int planes = 0;

    Lines(const Codes &codes, int64_t row, int64_t columns) {
        for (int plane = 0; plane < 4; plane++) {
            of[plane] = codes.planes[plane];
            if (!of[plane]) continue;
            of[plane] += row * bytes_of(columns, 1 << plane);
            planes |= 1 << plane;
        }
    }

    uint32_t code(int64_t column) const {
        uint32_t code = 0, shift = 0;
        for (int plane = 0; plane < 4; plane++) {
            if (!of[plane]) continue;
            const int64_t width = 1 << plane, bit = column * width;
            code |= ((of[plane][bit / 8] >> bit % 8) & ((1u << width) - 1)) << shift;
            shift += width;
        }
        return code;
    }
};

// Codes of a part of a row: by eights where eight divides the column, one by one at the ends.
void unpack(const Lines &lines, int64_t column, int64_t count, uint32_t *out) {
    int64_t done = 0;
    for (; done < count && (column + done) % 8; done++) out[done] = lines.code(column + done);
    const int64_t whole = (count - done) / 8 * 8;
    loops->unpack[lines.planes](lines.of, column + done, whole, out + done);
    for (done += whole; done < count; done++) out[done] = lines.code(column + done);
}

void scale(const Lines &lines, int64_t column, int64_t count, float middle, float factor,
           float offset, float *out) {
    int64_t done = 0;
    const auto alone = [&] {
        const auto code = static_cast<float>(lines.code(column + done));
        out[done++] = (code - middle) * factor + offset;
    };
    while (done < count && (column + done) % 8) alone();
    const int64_t whole = (count - done) / 8 * 8;
    loops->scaled[lines.planes](lines.of, column + done, whole, middle, factor, offset,
                                out + done);
    done += whole;
    while (done < count) alone();
}

void decode(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
            State &state) {
    matrix->decode(matrix, row, column, count, out, state);
}

// What belongs to the groups of a part of a row, such as their scales.
class GroupValues {
  public:
    GroupValues(const Packed *matrix, int64_t row, int64_t first, int64_t end, State &state)
        : first_(first), room_(near_) {
        if (end - first > PART) {
            far_.resize(end - first);
            room_ = far_.data();
        }
        decode(matrix, row, first, end - first, room_, state);
    }

    GroupValues(const GroupValues &) = delete;

    float operator[](int64_t group) const { return room_[group - first_]; }

  private:
    int64_t first_;
    float near_[PART];
    std::vector<float> far_;
    float *room_;
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

void decode_integers(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                     State &state) {
    const IntegerGroups &held = *reinterpret_cast<const IntegerGroups *>(matrix);
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
        const float factor = scales[group];
        float offset = offsets ? (*offsets)[group] : 0;
        if (zeros.planes) offset = (held.middle - zeros.code(group)) * factor;
        scale(lines, column + done, end - done, held.middle, factor, offset, out + done);
        done = end;
    }
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
        for (int64_t i = 0; i < part; i++)
            for (int64_t j = 0; j < length; j++) {
                const int64_t at = (first + i) * length + j - column;
                if (at >= 0 && at < count) out[at] = table[codes[i] * length + j];
            }
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
    const float *next = loops->spread(line, values, count / 8, out);
    for (int64_t k = count / 8 * 8; k < count; k++) out[k] = bit_of(line, k) ? *next++ : 0.0f;
}

// Whole rows only.
void decode_two_of_four(const Packed *matrix, int64_t row, int64_t, int64_t count, float *out,
                        State &state) {
    const TwoOfFour &held = *reinterpret_cast<const TwoOfFour *>(matrix);
    const uint8_t *line = held.positions + row * bytes_of(count / 2, 2);
    state.tile.resize(count / 2 + 8);
    float *values = state.tile.data();
    decode(held.values, row, 0, count / 2, values, state.inner(0));
    loops->spread_fours(line, values, count / 8, out);
    if (count % 8 == 0) return;
    out += count / 8 * 8;
    values += count / 8 * 4;
    std::fill_n(out, 4, 0.0f);
    out[line[count / 8] & 3] = values[0];
    out[line[count / 8] >> 2 & 3] = values[1];
}

void decode_signs(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    const SignBlock &held = *reinterpret_cast<const SignBlock *>(matrix);
    const uint8_t *line = held.signs + row * bytes_of(matrix->columns, 1);
    const GroupValues left(held.left, row, 0, held.left->columns, state.inner(0));
    state.tile.resize(count);
    std::fill_n(out, count, 0.0f);
    for (int64_t rank = 0; rank < held.left->columns; rank++) {
        decode(held.right, rank, column, count, state.tile.data(), state.inner(1));
        loops->combine(out, state.tile.data(), left[rank], count);
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

void decode_entropy(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &state) {
    const EntropyCoded &held = *reinterpret_cast<const EntropyCoded *>(matrix);
    if (state.table.empty()) make_table(held, state.table);
    const int64_t start = row * matrix->columns + column, end = start + count;
    uint8_t symbols[LANE];
    for (int64_t lane = start / LANE; lane * LANE < end; lane++) {
        read_lane(held, state.table.data(), lane, symbols);
        const int64_t from = std::max(start, lane * LANE), to = std::min(end, (lane + 1) * LANE);
        loops->join(held.rest + from, symbols + (from - lane * LANE), static_cast<uint32_t>(held.first),
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
            int64_t one = 0;
            for (; one + 2 <= count; one += 2)
                loops->pairs_of_dots(decoded.data(), several, x + one * columns, columns,
                                     y + one * rows + row, rows);
            if (one < count)
                loops->dots(decoded.data(), several, x + one * columns, columns,
                            y + one * rows + row);
        }
    }
}

// Takes the loops of a kind, 0 portable, 1 AVX2, 2 AVX-512, the best below 0; returns which run.
int use_loops(int kind) {
    if (kind == 0) loops = &portable::LOOPS;
    if (kind < 0) loops = best();
#ifdef SEVERAL_KINDS
    if (kind == 1 && has_avx2()) loops = &avx2::LOOPS;
    if (kind == 2 && has_avx512()) loops = &avx512::LOOPS;
    return loops == &avx512::LOOPS ? 2 : loops == &avx2::LOOPS ? 1 : 0;
#else
    return 0;
#endif
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
        whole[rank] = loops->product_in_place(line, x, columns);
    }
    const int64_t pieces = rows * columns >= ALONE ? 16 : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++)
        for (int64_t row = rows * piece / pieces; row < rows * (piece + 1) / pieces; row++) {
            const uint8_t *line = held.signs + row * bytes_of(columns, 1);
            float sum = 0;
            for (int64_t rank = 0; rank < ranks; rank++) {
                const float *values = scaled.data() + rank * columns;
                float positive = loops->marked(line, values, columns / 8);
                for (int64_t k = columns / 8 * 8; k < columns; k++)
                    if (bit_of(line, k)) positive += values[k];
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
