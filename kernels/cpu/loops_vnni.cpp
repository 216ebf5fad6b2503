// The loops for processors with AVX-512, VNNI, VBMI and GFNI, where those of AVX-512 differ.
#include "code_runs.h"

#include <type_traits>

#include "lookups.h"

#ifdef SEVERAL_KINDS
#include "vnni_target.h"
namespace {
#include "vnni.inl"
#include "window.inl"
}
#pragma GCC pop_options

namespace {

// Made by code that runs on every processor.
Loops with_vnni() {
    Loops found = *loops_of_avx512();
    found.table_dots = table_dots;
    found.sums = 16;
    found.deal_panel = deal_panel;
    found.code_dots[1] = code_dots<1>;
    found.code_dots[2] = code_dots<2>;
    found.code_dots[3] = code_dots<3>;
    found.code_dots[4] = code_dots<4>;
    take_wide_codes(found);
    take_values(found);
    found.deal_pairs = deal_pairs;
    found.masked_pairs_dot = masked_pairs_dot;
    found.masks_of_fours = masks_of_fours;
    found.deal_window = deal_window;
    found.window_dot = window_dot;
    found.expand_pairs = expand_pairs;
    found.look_up_codes = look_up_codes;
    found.join_window = join_window;
    return found;
}

}  // namespace

const Loops *loops_of_vnni() {
    static const Loops found = with_vnni();
    return &found;
}
#endif
