// bfloat16 numbers whose exponents are codes of four bits into a table; what the table lacks lies
// apart, row after row. Every bit is kept.
#include "window.h"

#include <algorithm>
#include <vector>

#include "bfloat16.h"
#include "decode.h"

namespace {

// Of the numbers apart, where those of a row begin.
int64_t first_apart(const WindowCoded &held, int64_t row) {
    return std::lower_bound(held.rows, held.rows + held.apart, static_cast<int32_t>(row)) -
           held.rows;
}

}  // namespace

void multiply_window(const WindowCoded &held, const float *x, float *y) {
    const int64_t rows = held.shape.rows, columns = held.shape.columns;
    uint8_t high[16], low[16];
    for (int code = 0; code < 16; code++) {
        high[code] = static_cast<uint8_t>(held.table[code] >> 1);
        low[code] = static_cast<uint8_t>(held.table[code] << 7);
    }
    std::vector<float> dealt((columns + 63) / 64 * 64);
    loops->deal_window(x, columns, dealt.data());
    const int64_t pieces = rows * columns >= ALONE ? PIECES : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t end = rows * (piece + 1) / pieces;
        int64_t row = rows * piece / pieces, next = first_apart(held, row);
        for (; row < end; row++) {
            float sum = loops->window_dot(held.rest + row * columns,
                                          held.codes + row * bytes_of(columns, 4), high, low,
                                          dealt.data(), columns);
            for (; next < held.apart && held.rows[next] == row; next++)
                sum += widened(held.values[next]) * x[held.columns[next]];
            y[row] = sum;
        }
    }
}

extern "C" void decode_window(const Packed *matrix, int64_t row, int64_t column, int64_t count,
                              float *out, State &) {
    const WindowCoded &held = *reinterpret_cast<const WindowCoded *>(matrix);
    const uint8_t *rest = held.rest + row * matrix->columns + column;
    const uint8_t *codes = held.codes + row * bytes_of(matrix->columns, 4);
    std::vector<uint8_t> exponents(count);
    for (int64_t i = 0; i < count; i++)
        exponents[i] = held.table[codes[(column + i) / 2] >> (column + i) % 2 * 4 & 15];
    loops->join(rest, exponents.data(), 0, count, out);
    for (int64_t next = first_apart(held, row); next < held.apart && held.rows[next] == row;
         next++) {
        const int64_t place = held.columns[next] - column;
        if (place >= 0 && place < count) out[place] = widened(held.values[next]);
    }
}
