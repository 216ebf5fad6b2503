// Codes of five to eight bits as loops_vnni.cpp has narrower ones: apart, to be compiled meanwhile.
#include "code_runs.h"

#include <type_traits>

#include "lookups.h"

#ifdef SEVERAL_KINDS
#include "vnni_target.h"
namespace {
#include "vnni.inl"
}
#pragma GCC pop_options

void take_wide_codes(Loops &found) {
    found.code_dots[5] = code_dots<5>;
    found.code_dots[6] = code_dots<6>;
    found.code_dots[7] = code_dots<7>;
    found.code_dots[8] = code_dots<8>;
}
#endif
