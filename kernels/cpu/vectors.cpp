// Products of one activation with vectors of a codebook and with kept groups (`vectors.h`).
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

float dot_of_groups(const Packed *matrix, int64_t row, const float *x, State &state) {
    const GroupSparse &held = as<GroupSparse>(matrix);
    const int64_t size = held.group_size, groups = (matrix->columns + size - 1) / size;
    const uint8_t *line = held.mask + row * bytes_of(groups, 1);
    if (row != state.row + 1) state.passed = loops->ones(held.mask, row * bytes_of(groups, 1));
    const int64_t kept = loops->ones(line, bytes_of(groups, 1));
    state.tile.assign(2 * kept * size, 0);
    float *values = state.tile.data(), *taken = values + kept * size, *next = taken;
    if (kept) decode(held.values, 0, state.passed * size, kept * size, values, state.inner(0));
    state.passed += kept;
    state.row = row;
    for (int64_t group = 0; group < groups; group++) {
        if (!bit_of(line, group)) continue;
        std::copy(x + group * size, x + std::min(matrix->columns, (group + 1) * size), next);
        next += size;
    }
    return loops->product_in_place(values, taken, kept * size);
}

void add_row(const Packed *matrix, int64_t row, float factor, float *out, std::vector<float> &line,
             State &state) {
    if (has_vectors(matrix)) {
        const Codebook &held = as<Codebook>(matrix);
        const auto add = loops->add_vectors[place_of(held.dimension)];
        each_part(matrix, row, [&](const uint32_t *codes, int64_t column, int64_t count) {
            add(codes, held.table, factor, count, out + column);
        });
    } else if (matrix->decode == decode_sum) {
        add_row(as<SumOfTwo>(matrix).first, row, factor, out, line, state.inner(0));
        add_row(as<SumOfTwo>(matrix).second, row, factor, out, line, state.inner(1));
    } else if (matrix->decode == decode_mixed) {
        const RowOf found(as<MixedRows>(matrix), row, state);
        add_row(found.held, found.row, factor, out, line, *found.state);
    } else {
        line.resize(matrix->columns);
        decode(matrix, row, 0, matrix->columns, line.data(), state);
        loops->combine(out, line.data(), factor, matrix->columns);
    }
}
