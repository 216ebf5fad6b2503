// Products with several activations: a tile of rows is written in float32 once, where a core's
// first cache holds it, and multiplied by all activations meanwhile.
#pragma once

#include "decode.h"

// Rows at which pieces begin, of all that threads divide.
struct Pieces {
    int64_t rows, count;

    // As many as there are, but none of less than some rows that are multiplied together.
    static Pieces of(int64_t rows, int64_t least, bool several) {
        return {rows, several ? std::clamp<int64_t>(rows / least, 1, PIECES) : 1};
    }

    int64_t first(int64_t piece) const { return rows * piece / count; }
};

// Of the values behind a mask [rows, bytes], those before each piece.
void count_before(const uint8_t *mask, int64_t bytes, const Pieces &pieces, int64_t *before);

// y[count, rows] = x[count, columns] W^T, the rows divided among threads.
void multiply_in_tiles(const Packed *matrix, const float *x, int64_t count, float *y);

// Whether rows are decoded whole before they meet tiles, which pays for many activations alone.
bool are_decoded(const Packed *matrix);
