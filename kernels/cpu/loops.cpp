// The loops of each kind of processor, and which of them run.
#include "loops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEVERAL_KINDS
#include <immintrin.h>
#endif

namespace {

// Where the kept entries of eight columns lie, by the byte of their mask.
struct Spread {
    uint32_t place[256][8], kept[256][8];
    uint32_t marked[256][8];  // the other way: the columns that are kept, one after another
    uint32_t first[9][8];    // as many as are kept

    Spread() {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t next = 0;
            std::fill_n(marked[byte], 8, 0);
            for (int bit = 0; bit < 8; bit++) {
                const bool there = (byte >> bit) & 1;
                if (there) marked[byte][next] = static_cast<uint32_t>(bit);
                place[byte][bit] = there ? next++ : 0;
                kept[byte][bit] = there ? ~0u : 0;
            }
        }
        for (int count = 0; count <= 8; count++)
            for (int i = 0; i < 8; i++) first[count][i] = i < count ? ~0u : 0;
    }
};

const Spread SPREAD;

// Where the kept entries of two fours lie, by the byte of their positions.
struct Fours {
    uint32_t place[256][8], kept[256][8];

    Fours() {
        for (int byte = 0; byte < 256; byte++) {
            for (int column = 0; column < 8; column++)
                place[byte][column] = kept[byte][column] = 0;
            for (uint32_t value = 0; value < 4; value++) {
                const uint32_t column = value / 2 * 4 + (byte >> (2 * value) & 3);
                place[byte][column] = value;
                kept[byte][column] = ~0u;
            }
        }
    }
};

const Fours FOURS;

namespace portable {
#include "loops.inl"
}

#ifdef SEVERAL_KINDS
#define HAS_AVX2  // __AVX2__ stays as it was before the pragma
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
namespace avx2 {
#include "loops.inl"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt")
#define HAS_AVX512
namespace avx512 {
#include "loops.inl"
}
#pragma GCC pop_options
#undef HAS_AVX2
#undef HAS_AVX512
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2")
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
namespace vnni {
#include "vnni.inl"
#include "window.inl"
}
#pragma GCC pop_options

// Made by code that runs on every processor.
Loops with_vnni() {
    Loops found = avx512::LOOPS;
    found.table_dots = vnni::table_dots;
    found.sums = 16;
    found.code_dots[1] = vnni::code_dots<1>;
    found.code_dots[2] = vnni::code_dots<2>;
    found.code_dots[3] = vnni::code_dots<3>;
    found.code_dots[4] = vnni::code_dots<4>;
    found.code_dots[5] = vnni::code_dots<5>;
    found.code_dots[6] = vnni::code_dots<6>;
    found.code_dots[7] = vnni::code_dots<7>;
    found.code_dots[8] = vnni::code_dots<8>;
    found.deal_pairs = vnni::deal_pairs;
    found.masked_pairs_dot = vnni::masked_pairs_dot;
    found.masks_of_fours = vnni::masks_of_fours;
    found.deal_window = vnni::deal_window;
    found.window_dot = vnni::window_dot;
    found.expand_pairs = vnni::expand_pairs;
    found.look_up_codes = vnni::look_up_codes;
    found.join_window = vnni::join_window;
    return found;
}

const Loops WITH_VNNI = with_vnni();

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_vnni() {
    return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
}

const Loops *best() {
    if (has_vnni()) return &WITH_VNNI;
    return has_avx512() ? &avx512::LOOPS : has_avx2() ? &avx2::LOOPS : &portable::LOOPS;
}
#else
const Loops *best() { return &portable::LOOPS; }
#endif

}  // namespace

const Loops *loops = best();

extern "C" {

// Takes the loops of a kind, 0 portable, 1 AVX2, 2 AVX-512, 3 AVX-512 with VNNI and VBMI, the best
// below 0; returns which run.
int use_loops(int kind) {
    if (kind == 0) loops = &portable::LOOPS;
    if (kind < 0) loops = best();
#ifdef SEVERAL_KINDS
    if (kind == 1 && has_avx2()) loops = &avx2::LOOPS;
    if (kind == 2 && has_avx512()) loops = &avx512::LOOPS;
    if (kind == 3 && has_vnni()) loops = &WITH_VNNI;
    if (loops == &WITH_VNNI) return 3;
    return loops == &avx512::LOOPS ? 2 : loops == &avx2::LOOPS ? 1 : 0;
#else
    return 0;
#endif
}
}
