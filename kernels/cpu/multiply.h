// Products of held matrices with activations: y[count, rows] = x[count, columns] W^T, in float32.
#pragma once

#include "packed.h"

extern "C" {

void multiply_many(const Packed *matrix, const float *x, int64_t count, float *y);

// The same of some rows alone, in this thread; those of others are left as they are.
void multiply_rows(const Packed *matrix, int64_t first, int64_t end, const float *x, int64_t count,
                   float *y);

// The product of activations that are rounded first: of their codes where the matrix has some too.
void multiply_rounded(const Packed *matrix, const float *x, int64_t count,
                      const Rounding &rounding, float *y);

// Each number [count, columns] becomes what its code stands for.
void round_in_place(float *x, int64_t count, int64_t columns, const Rounding &rounding);
}
