// Codes times activations as integers of 16 bits: groups, binary planes, tables of 16 values.
#include "codes.h"

namespace {

int64_t group_of(const Codebook &held) {
    return held.scales ? held.group_size : held.shape.columns;
}

// Whole rows that follow each other; `which` of the states inside is theirs.
void decode_rows(const Packed *matrix, int64_t first, int64_t count, float *out, State &whole,
                 int which) {
    decode_run(matrix, first, count, out, state_of(matrix, whole, which));
}

// Sums of groups times what they are worth: where the products of a run begin.
void begin_with_groups(const Run &run, const float *worth, int64_t groups,
                       const Fixed &activations, int64_t group_size) {
    loops->group_dots(worth, run.count, groups, activations.sums(group_size), activations.count(),
                      run.y, run.apart);
}

// The plane whose blocks codes of several planes are multiplied by together: the widest.
int64_t widest(int planes) { return planes & 8 ? 3 : planes & 4 ? 2 : planes & 2 ? 1 : 0; }

// Whether activations are laid out for a plane of codes of these.
bool is_laid(int planes, int64_t plane) {
    return loops->code_dots[planes] ? plane == widest(planes) : planes >> plane & 1;
}

// (code - middle) * scale + offset: codes times scales as integers, the rest by sums of groups.
void dots_of_integers(const IntegerGroups &held, const Run &run, const Fixed &activations,
                      State &state) {
    const int64_t groups = held.scales->columns, size = run.count * groups;
    state.tile.resize(2 * size + 16);  // sixteen scales are read at a time
    float *rest = state.tile.data(), *scales = rest + size;
    decode_worth(held, {run.first, run.count, 0, groups}, scales, rest, state);
    begin_with_groups(run, rest, groups, activations, held.group_size);
    if (const int planes = planes_of(held.codes); loops->code_dots[planes]) {
        CodeRows rows = {{}, {}, scales, groups, 1};
        for (int64_t plane = 0; plane < 4; plane++) {
            rows.bytes[plane] = bytes_of(held.shape.columns, 1 << plane);
            if (planes >> plane & 1)
                rows.lines[plane] = held.codes.planes[plane] + run.first * rows.bytes[plane];
        }
        loops->code_dots[planes](rows, run.count,
                                 activations.view(widest(planes), held.group_size),
                                 activations.count(), run.y, run.apart);
        return;
    }
    float factor = 1;
    for (int64_t plane = 0; plane < 4; plane++) {
        if (!held.codes.planes[plane]) continue;
        const int64_t bytes = bytes_of(held.shape.columns, 1 << plane);
        loops->plane_dots[plane](
            {held.codes.planes[plane] + run.first * bytes, bytes, scales, groups, factor},
            run.count, activations.view(plane, held.group_size), activations.count(), run.y,
            run.apart);
        factor *= static_cast<float>(1 << (1 << plane));
    }
}

// offset + sum over planes of scale * (2 * bit - 1): bits as codes, the rest by sums of groups.
void dots_of_binary(const BinaryCodes &held, const Run &run, const Fixed &activations,
                    State &state) {
    const int64_t groups = held.worth->columns, rows = held.shape.rows, size = run.count * groups;
    const int64_t bytes = bytes_of(held.shape.columns, 1);
    state.tile.resize((held.planes + 1) * size + 16);  // sixteen scales are read at a time
    float *rest = state.tile.data();
    decode_rows(held.worth, held.planes * rows + run.first, run.count, rest, state, 0);
    for (int64_t plane = 0; plane < held.planes; plane++) {
        float *scales = rest + (plane + 1) * size;
        decode_rows(held.worth, plane * rows + run.first, run.count, scales, state, 0);
        loops->combine(rest, scales, -1, size);
    }
    begin_with_groups(run, rest, groups, activations, held.group_size);
    const PlaneView view = activations.view(0, held.group_size);
    for (int64_t plane = 0; plane < held.planes; plane++)
        if (loops->code_dots[1])
            loops->code_dots[1]({{held.signs + (plane * rows + run.first) * bytes},
                                 {bytes},
                                 rest + (plane + 1) * size,
                                 groups,
                                 2},
                                run.count, view, activations.count(), run.y, run.apart);
        else
            loops->plane_dots[0]({held.signs + (plane * rows + run.first) * bytes, bytes,
                              rest + (plane + 1) * size, groups, 2},
                             run.count, view, activations.count(), run.y, run.apart);
}

void dots_of_codebook(const Codebook &held, const Run &run, const Fixed &activations,
                      State &state) {
    const int64_t groups = held.scales ? held.scales->columns : 1, size = run.count * groups;
    const int64_t columns = held.shape.columns, several = activations.count();
    state.tile.assign(size + 16, 1);  // sixteen scales are read at a time
    if (held.scales)
        decode_rows(held.scales, run.first, run.count, state.tile.data(), state, 0);
    const PlaneView view = activations.view(Fixed::TABLE, group_of(held));
    for (int64_t one = 0; one < several; one++)
        std::fill_n(run.y + one * run.apart, run.count, 0.0f);
    float own[16] = {}, scale = 0;
    Table table;
    if (!held.rows) {
        std::copy_n(held.table, held.size, own);
        scale = loops->round_table(own, table);
    }
    for (int64_t row = 0; row < run.count; row++) {
        if (held.rows) {
            loops->widen(held.rows + (run.first + row) * held.size, held.size, own);
            scale = loops->round_table(own, table);
        }
        float *scales = state.tile.data() + row * groups;
        loops->scale_by(scales, scale, groups);
        loops->table_dots(in_four_bits(held.codes, run.first + row, columns, state.codes),
                          bytes_of(columns, 4), table, view, several, scales,
                          run.y + row, run.apart);
    }
}

// Rows of either kind lie behind each other: both are multiplied, then dealt.
void dots_of_mixed(const MixedRows &mixed, const Run &run, const Fixed &activations,
                   State &state) {
    const int64_t several = activations.count(), passed = ones_before(mixed.mask, run.first);
    const int64_t fine = ones_before(mixed.mask, run.first + run.count) - passed;
    const int64_t all = run.count;
    state.tile.resize(all * several);
    float *found = state.tile.data();
    dots_of_codes(mixed.fine, {passed, fine, found, all}, activations, state.inner(0));
    dots_of_codes(mixed.coarse, {run.first - passed, all - fine, found + fine, all}, activations,
                  state.inner(1));
    for (int64_t row = 0, of[2] = {fine, 0}; row < all; row++) {
        const int64_t at = of[bit_of(mixed.mask, run.first + row)]++;
        for (int64_t one = 0; one < several; one++)
            run.y[one * run.apart + row] = found[one * all + at];
    }
}

}  // namespace

bool has_table(const Codebook &held) { return held.dimension == 1 && held.size <= 16; }

const uint8_t *in_four_bits(const Codes &codes, int64_t row, int64_t columns,
                            std::vector<uint8_t> &room) {
    if (codes.planes[2]) return codes.planes[2] + row * bytes_of(columns, 4);
    const Lines lines(codes, row, columns);
    const int64_t eights = columns / 8, left = columns % 8;
    const auto spread = loops->spread_to_four[lines.planes];
    room.resize((columns + 7) / 8 * 4);
    spread(lines.of[0], lines.of[1], eights, room.data());
    if (!left) return room.data();
    uint8_t last[3] = {};  // an eighth of a byte's codes and more lie behind the row's end
    if (lines.of[0]) last[0] = lines.of[0][eights];
    if (lines.of[1]) std::copy_n(lines.of[1] + 2 * eights, bytes_of(left, 2), last + 1);
    spread(last, last + 1, 1, room.data() + 4 * eights);
    return room.data();
}

bool has_codes(const Packed *matrix, int64_t shared) {
    if (matrix->decode == decode_mixed)
        return has_codes(as<MixedRows>(matrix).fine, shared) &&
               has_codes(as<MixedRows>(matrix).coarse, shared);
    if (matrix->decode == decode_codebook) {
        const Codebook &held = as<Codebook>(matrix);
        return has_table(held) && Fixed::lane(Fixed::TABLE) <= shared &&
               Fixed::parts(Fixed::TABLE, group_of(held), matrix->columns);
    }
    if (matrix->decode == decode_binary)
        return Fixed::lane(0) <= shared &&
               Fixed::parts(0, as<BinaryCodes>(matrix).group_size, matrix->columns);
    if (matrix->decode != decode_integers) return false;
    const IntegerGroups &held = as<IntegerGroups>(matrix);
    const int planes = planes_of(held.codes);
    for (int64_t plane = 0; plane < 4; plane++)
        if (is_laid(planes, plane) &&
            (!Fixed::parts(plane, held.group_size, matrix->columns) || Fixed::lane(plane) > shared))
            return false;
    return true;
}

void lay(Fixed &activations, const Packed *matrix) {
    if (matrix->decode == decode_mixed) {
        lay(activations, as<MixedRows>(matrix).fine);
        lay(activations, as<MixedRows>(matrix).coarse);
    } else if (matrix->decode == decode_codebook) {
        activations.lay(Fixed::TABLE, group_of(as<Codebook>(matrix)), nullptr);
    } else if (matrix->decode == decode_binary) {
        activations.lay(0, as<BinaryCodes>(matrix).group_size, loops->deal_panel);
    } else {
        const IntegerGroups &held = as<IntegerGroups>(matrix);
        const int planes = planes_of(held.codes);
        for (int64_t plane = 0; plane < 4; plane++)
            if (is_laid(planes, plane)) activations.lay(plane, held.group_size, loops->deal_panel);
    }
}

void dots_of_codes(const Packed *matrix, const Run &run, const Fixed &activations, State &state) {
    if (matrix->decode == decode_mixed)
        dots_of_mixed(as<MixedRows>(matrix), run, activations, state);
    else if (matrix->decode == decode_codebook)
        dots_of_codebook(as<Codebook>(matrix), run, activations, state);
    else if (matrix->decode == decode_binary)
        dots_of_binary(as<BinaryCodes>(matrix), run, activations, state);
    else
        dots_of_integers(as<IntegerGroups>(matrix), run, activations, state);
}
