// One activation with what is held in vectors of a codebook, in kept groups or turned: products on
// what is held, which never make a whole row.
#pragma once

#include "codes.h"

// Whether rows are codes of vectors, of a length that loops know, without scales.
bool has_vectors(const Packed *matrix);

// The product of a row of vectors with an activation.
float dot_of_vectors(const Packed *matrix, int64_t row, const float *x);

// Whether rows are short and of codes into a table of their own, which loops look up in float32.
bool has_short_tables(const Packed *matrix, int64_t count);

// The products of some such rows with an activation.
void dots_of_tables(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y);

// Whether rows are short and of signs, which loops look up for sixteen rows at once.
bool has_short_signs(const Packed *matrix);

// The products of some such rows with an activation.
void dots_of_signs(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y);

// The products of some rows of kept groups with an activation.
void dots_of_groups(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y);

// Adds the product of one activation and the transpose of a matrix to `out`.
void add_turned(const Packed *held, const float *x, float *out);
