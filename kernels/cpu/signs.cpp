// Signs of one bit times the product of two thin factors: decoded, and multiplied by the factors.
#include "decode.h"

namespace {

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
    const int64_t pieces = rows * columns >= DECODED ? PIECES : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = rows * piece / pieces, end = rows * (piece + 1) / pieces;
        loops->sign_sums(held.signs + first * bytes, bytes, end - first, scaled.data(), many,
                         sums.data() + first, rows);
    }
    for (int64_t one = 0; one < count; one++)
        for (int64_t row = 0; row < rows; row++) {
            float sum = 0;
            for (int64_t rank = 0; rank < ranks; rank++)
                sum += left[row * ranks + rank] * sums[(one * ranks + rank) * rows + row];
            y[one * rows + row] = sum;
        }
}

}  // namespace

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
