// The loops for processors with AVX-512.
#include "lookups.h"

#ifdef SEVERAL_KINDS
#define HAS_AVX2
#define HAS_AVX512
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt")
namespace {
#include "loops.inl"
}
#pragma GCC pop_options

const Loops *loops_of_avx512() { return &LOOPS; }
#endif
