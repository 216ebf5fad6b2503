// Products of one activation with vectors of a codebook, as they lie and turned (`vectors.h`).
#include "vectors.h"

namespace {

// Codes of a row, a part at a time.
template <typename Take>
void each_part(const Packed *matrix, int64_t row, Take take) {
    const Codebook &held = as<Codebook>(matrix);
    const int64_t entries = matrix->columns / held.dimension;
    const Lines lines(held.codes, row, entries);
    uint32_t codes[PART];
    for (int64_t first = 0; first < entries; first += PART) {
        const int64_t part = std::min(PART, entries - first);
        unpack(lines, first, part, codes);
        take(codes, first * held.dimension, part);
    }
}

// Rows of codes of one plane into one table, of a length that loops know, each with a number;
// without codes where a matrix is something else.
VectorColumns lines_of(const Packed *matrix, const float *x) {
    if (matrix->decode != decode_codebook) return {};
    const Codebook &held = as<Codebook>(matrix);
    const int64_t length = held.dimension, whole = length & (length - 1);
    if (held.scales || held.rows || whole || length > 8) return {};
    const int width = planes_of(held.codes);
    if (!width || width & (width - 1) || held.size != int64_t{1} << width) return {};
    return {held.codes.planes[__builtin_ctz(width)], bytes_of(matrix->columns / length, width),
            matrix->rows, width, held.table, x};
}

// Each row decoded, times its number, and added up.
void add_rows(const Packed *held, const float *x, float *out) {
    const int64_t columns = held->columns, pieces = columns * held->rows >= DECODED ? PIECES : 1;
    std::vector<float> found(pieces * columns);
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        State state;
        std::vector<float> line(columns);
        for (int64_t k = held->rows * piece / pieces; k < held->rows * (piece + 1) / pieces; k++) {
            decode(held, k, 0, columns, line.data(), state);
            loops->combine(found.data() + piece * columns, line.data(), x[k], columns);
        }
    }
    for (int64_t piece = 0; piece < pieces; piece++)
        loops->combine(out, found.data() + piece * columns, 1, columns);
}

// 1, 2 and 3 for vectors of 2, 4 and 8 numbers.
int64_t place_of(int64_t length) { return length == 8 ? 3 : length / 2; }

}  // namespace

bool has_vectors(const Packed *matrix) {
    if (matrix->decode != decode_codebook) return false;
    const Codebook &held = as<Codebook>(matrix);
    return !held.scales && (held.dimension == 2 || held.dimension == 4 || held.dimension == 8);
}

float dot_of_vectors(const Packed *matrix, int64_t row, const float *x) {
    const Codebook &held = as<Codebook>(matrix);
    const auto dot = loops->vectors_dot[place_of(held.dimension)];
    float sum = 0;
    each_part(matrix, row, [&](const uint32_t *codes, int64_t column, int64_t count) {
        sum += dot(codes, held.table, x + column, count);
    });
    return sum;
}

bool has_short_tables(const Packed *matrix, int64_t count) {
    // Columns up to which integers take longer to make than to add: of a table a row, and of one
    // table with scales, which is rounded but once.
    constexpr int64_t SHORT = 1024, SHORTER = 256;
    if (!loops->table_rows || matrix->decode != decode_codebook) return false;
    const Codebook &held = as<Codebook>(matrix);
    const bool own = held.rows && !held.scales;
    if (!has_table(held) || matrix->columns > (own ? SHORT : SHORTER)) return false;
    if (!own && count > 1) return false;
    if (held.scales && held.group_size < matrix->columns && held.group_size % 16) return false;
    return int64_t{1} << planes_of(held.codes) == held.size;
}

void dots_of_tables(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y) {
    const Codebook &held = as<Codebook>(matrix);
    const int64_t columns = matrix->columns, size = held.codes.planes[2] ? 16 : 1;
    const int64_t groups = held.scales ? held.scales->columns : 1, count = end - first;
    std::vector<float> room((columns + 15) / 16 * 16 + (held.scales ? count * groups : 0));
    float *dealt = room.data(), *scales = dealt + (columns + 15) / 16 * 16;
    loops->deal_kept(x, columns, size, dealt);
    float table[16] = {};
    if (!held.rows)
        for (int64_t i = 0; i < 16; i++) table[i] = held.table[i % held.size];
    State state;
    if (held.scales) decode_run(held.scales, first, count, scales, state);
    TableRows rows = {{}, {}, held.rows ? held.rows + first * held.size : nullptr, table,
                      held.scales ? scales : nullptr, held.size, columns,
                      held.group_size < columns ? held.group_size : (columns + 15) / 16 * 16,
                      groups};
    for (int64_t plane = 0; plane < 3; plane++) {
        if (!held.codes.planes[plane]) continue;
        rows.bytes[plane] = bytes_of(columns, 1 << plane);
        rows.lines[plane] = held.codes.planes[plane] + first * rows.bytes[plane];
    }
    loops->table_rows(rows, count, dealt, y + first);
}

void add_turned(const Packed *held, const float *x, float *out) {
    if (const VectorColumns lines = lines_of(held, x); lines.codes) {
        const Codebook &codes = as<Codebook>(held);
        const int64_t length = codes.dimension, vectors = held->columns / length;
        const auto add = loops->add_columns[length == 1 ? 0 : place_of(length)];
        const bool large = held->rows * held->columns >= ALONE;
        const int64_t eights = vectors / 8;
        const int64_t pieces = large ? std::clamp<int64_t>(eights / 8, 1, PIECES) : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
        for (int64_t piece = 0; piece < pieces; piece++)
            add(lines, eights * piece / pieces * 8,
                piece + 1 < pieces ? eights * (piece + 1) / pieces * 8 : vectors, out);
    } else if (held->decode == decode_sum) {
        add_turned(as<SumOfTwo>(held).first, x, out);
        add_turned(as<SumOfTwo>(held).second, x, out);
    } else if (held->decode == decode_mixed) {
        const MixedRows &mixed = as<MixedRows>(held);
        std::vector<float> parted(2 * held->rows);
        float *fine = parted.data(), *coarse = fine + held->rows;
        int64_t passed = 0;
        for (int64_t row = 0; row < held->rows; row++) {
            fine[passed] = coarse[row - passed] = x[row];
            passed += bit_of(mixed.mask, row);
        }
        add_turned(mixed.fine, fine, out);
        add_turned(mixed.coarse, coarse, out);
    } else {
        add_rows(held, x, out);
    }
}
