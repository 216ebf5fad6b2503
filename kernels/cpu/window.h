// Products with bfloat16 numbers whose exponents are codes of four bits.
#pragma once

#include "packed.h"

// y[rows] = W x for one activation; where the loops have a `window_dot`.
void multiply_window(const WindowCoded &held, const float *x, float *y);

// By a code of four bits, its exponent in the upper and in the lower byte of a number.
struct WindowExponents {
    uint8_t high[16], low[16];

    void take(const WindowCoded &held) {
        for (int code = 0; code < 16; code++) {
            high[code] = static_cast<uint8_t>(held.table[code] >> 1);
            low[code] = static_cast<uint8_t>(held.table[code] << 7);
        }
    }
};

// Adds what the numbers apart of some rows give, to y[count, rows].
void add_apart(const WindowCoded &held, int64_t first, int64_t end, const float *x, int64_t count,
               float *y);
