// Products with codes as integers (`fixed.h`): which matrices know them, and a run of their rows.
#pragma once

#include "decode.h"

// A run of rows of a matrix, and where their products with all activations go.
struct Run {
    int64_t first, count;
    float *y;  // [activations, apart]
    int64_t apart;
};

// Whether a matrix is multiplied as integers: its codes in groups that no sum of a block mixes, and
// no sum mixes activations that have two steps, of which so many share one.
bool has_codes(const Packed *matrix, int64_t shared = Fixed::SHARED);

// Whether codes point into one table a row or one for all, of as many values as a register holds.
bool has_table(const Codebook &held);

// A row's codes as codes of four bits each: where they lie, or made in a room.
const uint8_t *in_four_bits(const Codes &codes, int64_t row, int64_t columns,
                            std::vector<uint8_t> &room);

// Lays activations out for the codes of a matrix.
void lay(Fixed &activations, const Packed *matrix);

// The products of a run of rows with all activations.
void dots_of_codes(const Packed *matrix, const Run &run, const Fixed &activations, State &state);
