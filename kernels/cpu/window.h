// Products with bfloat16 numbers whose exponents are codes of four bits.
#pragma once

#include "packed.h"

// y[rows] = W x for one activation; where the loops have a `window_dot`.
void multiply_window(const WindowCoded &held, const float *x, float *y);
