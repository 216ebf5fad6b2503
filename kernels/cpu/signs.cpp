// Signs of one bit times the product of two thin factors: decoded, and multiplied by the factors.
#include "tiles.h"
#include "vectors.h"

namespace {

constexpr int64_t LOOKED_UP = 128;  // rows of a piece, for each looks up what signs make of numbers
constexpr int64_t TOGETHER = 16;  // sums of a row that are made at once, if it has fewer ranks

// All of a small matrix.
std::vector<float> whole_of(const Packed *matrix) {
    std::vector<float> found(matrix->rows * matrix->columns);
    State state;
    decode_run(matrix, 0, matrix->rows, found.data(), state);
    return found;
}

// Sums of each activation times a right factor, with the signs of each row, times the left ones.
void multiply_some(const SignBlock &held, const std::vector<float> &left,
                   const std::vector<float> &right, const float *x, int64_t count, float *y) {
    const int64_t rows = held.shape.rows, columns = held.shape.columns, ranks = held.left->columns;
    const int64_t bytes = bytes_of(columns, 1), many = count * ranks;
    std::vector<float> scaled(many * 8 * bytes), sums(many * rows);
    for (int64_t one = 0; one < count; one++)
        for (int64_t rank = 0; rank < ranks; rank++) {
            float *line = scaled.data() + (one * ranks + rank) * 8 * bytes;
            std::copy_n(right.data() + rank * columns, columns, line);
            loops->product_in_place(line, x + one * columns, columns);
        }
    const auto add = [&](int64_t first, int64_t end) {
        loops->sign_sums(held.signs + first * bytes, bytes, end - first, scaled.data(), many,
                         sums.data() + first, rows);
    };
    const Pieces pieces = Pieces::of(rows, LOOKED_UP, rows * columns >= ALONE);
    if (pieces.count == 1) {  // a loop of threads takes as long as a small product, even of one
        add(0, rows);
    } else {
#pragma omp parallel for schedule(dynamic)
        for (int64_t piece = 0; piece < pieces.count; piece++)
            add(pieces.first(piece), pieces.first(piece + 1));
    }
    for (int64_t one = 0; one < count; one++)
        for (int64_t row = 0; row < rows; row++) {
            float sum = 0;
            for (int64_t rank = 0; rank < ranks; rank++)
                sum += left[row * ranks + rank] * sums[(one * ranks + rank) * rows + row];
            y[one * rows + row] = sum;
        }
}

// Planes of signs and what they are worth: scales [planes, rows, groups] and a rest [rows, groups].
void take_worth(const Packed *matrix, int64_t first, int64_t count, float *scales, float *rest,
                State &state) {
    if (matrix->decode == decode_binary) {
        const BinaryCodes &held = as<BinaryCodes>(matrix);
        const int64_t size = count * held.worth->columns, rows = matrix->rows;
        for (int64_t plane = 0; plane < held.planes; plane++)
            decode_run(held.worth, plane * rows + first, count, scales + plane * size, state);
        decode_run(held.worth, held.planes * rows + first, count, rest, state);
        return;
    }
    const IntegerGroups &held = as<IntegerGroups>(matrix);  // a code is half its sign and a half
    const int64_t groups = held.scales->columns, size = count * groups;
    decode_run(held.scales, first, count, scales, state.inner(0));
    loops->scale_by(scales, held.unit / 2, size);
    if (planes_of(held.zero_points))
        decode_codes(held.zero_points, groups, {first, count, 0, groups}, rest);
    else
        std::fill_n(rest, size, held.middle);
    for (int64_t i = 0; i < size; i++) rest[i] = (1 - 2 * rest[i]) * scales[i];
    if (!held.offsets) return;
    state.tile.resize(size);
    decode_run(held.offsets, first, count, state.tile.data(), state.inner(1));
    loops->combine(rest, state.tile.data(), 1, size);
}

}  // namespace

bool has_short_signs(const Packed *matrix) {
    constexpr int64_t SHORT = 256;  // columns, half of what a register of codes of one bit has
    if (!loops->sign_groups || matrix->columns > SHORT) return false;
    if (matrix->rows * matrix->columns >= ALONE) return false;  // each thread would make tables
    int64_t size = 0;
    if (matrix->decode == decode_binary) size = as<BinaryCodes>(matrix).group_size;
    if (matrix->decode == decode_integers && planes_of(as<IntegerGroups>(matrix).codes) == 1)
        size = as<IntegerGroups>(matrix).group_size;
    return size && (size % 32 == 0 || size >= matrix->columns);
}

void dots_of_signs(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y) {
    const bool binary = matrix->decode == decode_binary;
    const int64_t columns = matrix->columns, bytes = bytes_of(columns, 1), count = end - first;
    const int64_t planes = binary ? as<BinaryCodes>(matrix).planes : 1;
    const int64_t given = binary ? as<BinaryCodes>(matrix).group_size
                                 : as<IntegerGroups>(matrix).group_size;
    const int64_t size = std::min(given, 8 * bytes), groups = (columns + size - 1) / size;
    const uint8_t *signs = binary ? as<BinaryCodes>(matrix).signs
                                  : as<IntegerGroups>(matrix).codes.planes[0];
    const int64_t each = count * groups;
    thread_local State state;  // keeps its rooms
    thread_local std::vector<float> room;
    state.forget();
    room.assign(8 * bytes + groups + (2 * planes + 1) * each, 0);
    float *taken = room.data(), *whole = taken + 8 * bytes, *sums = whole + groups;
    float *scales = sums + planes * each, *rest = scales + planes * each;
    std::copy_n(x, columns, taken);
    for (int64_t k = 0; k < columns; k++) whole[k / size] += x[k];
    take_worth(matrix, first, count, scales, rest, state);
    loops->group_dots(rest, count, groups, whole, 1, y + first, 0);
    const int64_t apart = matrix->rows * bytes;
    loops->sign_groups({signs + first * bytes, bytes, count, planes, apart, (size + 7) / 8}, taken,
                       sums);
    for (int64_t plane = 0; plane < planes; plane++)
        loops->add_groups(scales + plane * each, sums + plane * count, count, groups,
                          planes * count, y + first);
}

extern "C" {

void decode_signs(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                  State &state) {
    const SignBlock &held = as<SignBlock>(matrix);
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

void multiply_signs(const void *matrix, const float *x, int64_t count, float *y) {
    const SignBlock &held = *static_cast<const SignBlock *>(matrix);
    const std::vector<float> left = whole_of(held.left), right = whole_of(held.right);
    const int64_t together = std::max<int64_t>(1, TOGETHER / held.left->columns);
    for (int64_t one = 0; one < count; one += together)
        multiply_some(held, left, right, x + one * held.shape.columns,
                      std::min(together, count - one), y + one * held.shape.rows);
}
}
