// Kept groups behind a mask: decoded, and multiplied with one activation. Codes of four bits are
// taken as they lie; what else groups hold is decoded first.
#include "codes.h"
#include "vectors.h"

namespace {

constexpr int64_t RUN = 64;  // rows whose scales are decoded together

int64_t groups_of(const GroupSparse &held) {
    return (held.shape.columns + held.group_size - 1) / held.group_size;
}

// Whether loops know the groups: of codes of four bits, each group with a scale of its own.
bool are_codes(const GroupSparse &held) {
    if (held.values->decode != decode_integers) return false;
    const IntegerGroups &values = as<IntegerGroups>(held.values);
    const int64_t size = held.group_size;
    return values.group_size == size && (size == 8 || size == 16 || size == 32) &&
           planes_of(values.codes) == 4;
}

// Rows of codes, of which so many groups lie before; what they are worth goes into a room.
KeptGroups take_rows(const GroupSparse &held, int64_t row, int64_t rows, int64_t passed,
                     int64_t kept, State &state) {
    const IntegerGroups &values = as<IntegerGroups>(held.values);
    const int64_t groups = groups_of(held);
    state.tile.resize(4 * kept + 2);
    float *worth = state.tile.data(), *scales = worth + 2 * kept + 2, *shifts = scales + kept;
    decode_worth(values, {0, 1, passed, kept}, scales, shifts, state);
    worth[0] = worth[1] = 0;
    for (int64_t i = 0; i < kept; i++) worth[2 * i + 2] = scales[i], worth[2 * i + 3] = shifts[i];
    return {values.codes.planes[2] + passed * held.group_size / 2,
            worth,
            held.mask + row * bytes_of(groups, 1),
            rows,
            groups,
            held.group_size};
}

// The product of a row of anything with an activation.
float dot_of_decoded(const GroupSparse &held, int64_t row, const float *x, State &state) {
    const int64_t size = held.group_size, groups = groups_of(held), columns = held.shape.columns;
    const uint8_t *line = held.mask + row * bytes_of(groups, 1);
    const int64_t kept = loops->ones(line, bytes_of(groups, 1));
    state.tile.assign(2 * kept * size, 0);
    float *values = state.tile.data(), *taken = values + kept * size, *next = taken;
    if (kept) decode(held.values, 0, state.passed * size, kept * size, values, state.inner(0));
    state.passed += kept;
    for (int64_t group = 0; group < groups; group++) {
        if (!bit_of(line, group)) continue;
        std::copy(x + group * size, x + std::min(columns, (group + 1) * size), next);
        next += size;
    }
    return loops->product_in_place(values, taken, kept * size);
}

// A row of anything, up to the end of its last group.
void write_decoded(const GroupSparse &held, int64_t row, int64_t kept, State &state, float *out) {
    const int64_t size = held.group_size, groups = groups_of(held);
    const uint8_t *line = held.mask + row * bytes_of(groups, 1);
    state.tile.resize(kept * size);
    const float *next = state.tile.data();
    decode(held.values, 0, state.passed * size, kept * size, state.tile.data(), state.inner(0));
    std::fill_n(out, groups * size, 0.0f);
    for (int64_t group = 0; group < groups; group++) {
        if (!bit_of(line, group)) continue;
        std::copy_n(next, size, out + group * size);
        next += size;
    }
}

}  // namespace

void dots_of_groups(const Packed *matrix, int64_t first, int64_t end, const float *x, float *y) {
    const GroupSparse &held = as<GroupSparse>(matrix);
    const int64_t groups = groups_of(held), bytes = bytes_of(groups, 1);
    State state;
    state.passed = loops->ones(held.mask, first * bytes);
    if (!are_codes(held)) {
        for (int64_t row = first; row < end; row++) y[row] = dot_of_decoded(held, row, x, state);
        return;
    }
    std::vector<float> dealt(groups * held.group_size);
    loops->deal_kept(x, matrix->columns, held.group_size, dealt.data());
    for (int64_t row = first; row < end; row += RUN) {
        const int64_t several = std::min(RUN, end - row);
        const int64_t kept = loops->ones(held.mask + row * bytes, several * bytes);
        std::fill_n(y + row, several, 0.0f);
        if (!kept) continue;
        loops->kept_dots(take_rows(held, row, several, state.passed, kept, state), dealt.data(),
                         y + row);
        state.passed += kept;
    }
}

extern "C" {

// Kept groups lie one after another, each of one size: a row's last may reach beyond its end.
void decode_groups(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                   State &state) {
    const GroupSparse &held = as<GroupSparse>(matrix);
    const int64_t groups = groups_of(held), bytes = bytes_of(groups, 1);
    if (row != state.row + 1) state.passed = loops->ones(held.mask, row * bytes);
    const int64_t kept = loops->ones(held.mask + row * bytes, bytes);
    const bool whole = count == groups * held.group_size;
    std::vector<float> room(whole ? 0 : groups * held.group_size);
    float *line = whole ? out : room.data();
    if (!kept)
        std::fill_n(line, groups * held.group_size, 0.0f);
    else if (are_codes(held))
        loops->write_kept(take_rows(held, row, 1, state.passed, kept, state), line);
    else
        write_decoded(held, row, kept, state, line);
    state.passed += kept;
    state.row = row;
    if (!whole) std::copy_n(line + column, count, out);
}
}
