// A tile of codes with a few activations, for all widths of codes: apart, to be compiled meanwhile.
#include "code_runs.h"

#include <type_traits>

#include "lookups.h"

#ifdef SEVERAL_KINDS
#include "vnni_target.h"
namespace {
#include "code_runs.inl"
}
#pragma GCC pop_options

AddRun add_run_of(bool in_bytes, int64_t pieces, int64_t activations) {
    return (in_bytes ? OF_BYTES : OF_PAIRS)[pieces / 2][activations - 1];
}
#endif
