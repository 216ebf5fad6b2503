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
    WindowExponents exponents;
    exponents.take(held);
    std::vector<float> dealt((columns + 63) / 64 * 64);
    loops->deal_window(x, columns, dealt.data());
    const int64_t pieces = rows * columns >= ALONE ? PIECES : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t end = rows * (piece + 1) / pieces;
        const int64_t first = rows * piece / pieces;
        for (int64_t row = first; row < end; row++)
            y[row] = loops->window_dot(held.rest + row * columns,
                                       held.codes + row * bytes_of(columns, 4), exponents.high,
                                       exponents.low, dealt.data(), columns);
        add_apart(held, first, end, x, 1, y);
    }
}

void add_apart(const WindowCoded &held, int64_t first, int64_t end, const float *x, int64_t count,
               float *y) {
    const int64_t rows = held.shape.rows, columns = held.shape.columns;
    for (int64_t next = first_apart(held, first); next < held.apart && held.rows[next] < end;
         next++)
        for (int64_t one = 0; one < count; one++)
            y[one * rows + held.rows[next]] +=
                widened(held.values[next]) * x[one * columns + held.columns[next]];
}

extern "C" void decode_window(const Packed *matrix, int64_t row, int64_t column, int64_t count,
                              float *out, State &state) {
    const WindowCoded &held = *reinterpret_cast<const WindowCoded *>(matrix);
    const uint8_t *rest = held.rest + row * matrix->columns + column;
    const uint8_t *codes = held.codes + row * bytes_of(matrix->columns, 4);
    if (state.table.empty()) {  // exponents of two codes by their byte
        state.table.resize(256);
        for (int byte = 0; byte < 256; byte++)
            state.table[byte] =
                static_cast<uint16_t>(held.table[byte & 15] | held.table[byte >> 4] << 8);
    }
    const int64_t odd = column % 2, bytes = (odd + count + 1) / 2;
    state.codes.resize(2 * bytes);
    for (int64_t i = 0; i < bytes; i++) {
        const uint16_t two = state.table[codes[column / 2 + i]];
        state.codes[2 * i] = static_cast<uint8_t>(two);
        state.codes[2 * i + 1] = static_cast<uint8_t>(two >> 8);
    }
    loops->join(rest, state.codes.data() + odd, count, out);
    for (int64_t next = first_apart(held, row); next < held.apart && held.rows[next] == row;
         next++) {
        const int64_t place = held.columns[next] - column;
        if (place >= 0 && place < count) out[place] = widened(held.values[next]);
    }
}
