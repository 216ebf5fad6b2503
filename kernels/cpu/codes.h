// Products with codes as integers (`fixed.h`): which matrices know them, and a run of their rows.
#pragma once

#include "decode.h"

// A run of rows of a matrix, and where their products with all activations go.
struct Run {
    int64_t first, count;
    float *y;  // [rows, activations]
};

// Whether a matrix is multiplied as integers: its codes in groups that no sum of a block mixes.
bool has_codes(const Packed *matrix);

// Lays activations out for the codes of a matrix.
void lay(Fixed &activations, const Packed *matrix);

// The products of a run of rows with all activations.
void dots_of_codes(const Packed *matrix, const Run &run, const Fixed &activations, State &state);
