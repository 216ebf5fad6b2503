// The loops for every processor, and which of all kinds run.
#include "lookups.h"

namespace {

namespace portable {
#include "loops.inl"
}

#ifdef SEVERAL_KINDS
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_vnni() {
    return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("gfni");
}

const Loops *best() {
    if (has_vnni()) return loops_of_vnni();
    return has_avx512() ? loops_of_avx512() : has_avx2() ? loops_of_avx2() : &portable::LOOPS;
}
#else
const Loops *best() { return &portable::LOOPS; }
#endif

}  // namespace

const Loops *loops = best();

extern "C" {

// Takes the loops of a kind, 0 portable, 1 AVX2, 2 AVX-512, 3 AVX-512 with VNNI, VBMI and GFNI, the
// best below 0; returns which run.
int use_loops(int kind) {
    if (kind == 0) loops = &portable::LOOPS;
    if (kind < 0) loops = best();
#ifdef SEVERAL_KINDS
    if (kind == 1 && has_avx2()) loops = loops_of_avx2();
    if (kind == 2 && has_avx512()) loops = loops_of_avx512();
    if (kind == 3 && has_vnni()) loops = loops_of_vnni();
    if (loops == loops_of_vnni()) return 3;
    return loops == loops_of_avx512() ? 2 : loops == loops_of_avx2() ? 1 : 0;
#else
    return 0;
#endif
}
}
