// The loops for processors with AVX2.
#include "lookups.h"

#ifdef SEVERAL_KINDS
#define HAS_AVX2  // __AVX2__ stays as it was before the pragma
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
namespace {
#include "loops.inl"
}
#pragma GCC pop_options

const Loops *loops_of_avx2() { return &LOOPS; }
#endif
