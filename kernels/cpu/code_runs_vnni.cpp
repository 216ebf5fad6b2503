// A tile of codes with a few activations, for all widths of codes: apart, to be compiled meanwhile.
#include "code_runs.h"

#include <type_traits>

#include "lookups.h"

#ifdef SEVERAL_KINDS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2")
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
namespace {
#include "code_runs.inl"
}
#pragma GCC pop_options

AddRun add_run_of(bool in_bytes, int64_t pieces, int64_t activations) {
    return (in_bytes ? OF_BYTES : OF_PAIRS)[pieces / 2][activations - 1];
}
#endif
