// Products of codes by AVX-512 with VNNI: of few activations by sixteen rows, of more in tiles, each sum
// in one order; four rows at a time where groups or steps part within 32 columns. A part of vnni.inl.

// Sixteen sums of each row, rows that lie `step` apart with one or two activations.
template <int PLANES, int ROWS, int MANY, bool BYTES>
inline __attribute__((always_inline)) void sums_of_codes(const CodeRows &rows, int64_t row,
                                                         int64_t step, const PlaneView &view,
                                                         int64_t one, __m512 (&sums)[MANY][ROWS]) {
    typedef Held<PLANES> Of;
    constexpr int WIDEST = Of::WIDEST, EACH = Of::EACH;
    const auto *bytes = reinterpret_cast<const uint8_t *>(view.words + one * view.words_apart);
    for (auto &several : sums)
        for (auto &sum : several) sum = _mm512_setzero_ps();
    const auto add = [&](int64_t block, bool whole) __attribute__((always_inline)) {
        const uint8_t *x = bytes + 128 * EACH * block;
        __m512i first[MANY];
        __m512 lanes[MANY];
        for (int i = 0; i < MANY; i++) {
            first[i] = _mm512_setzero_si512();
            if (Of::WIDTH == 8 && !BYTES)  // codes less 128, so that they have a sign as the operation asks
                first[i] = _mm512_sub_epi32(
                    first[i], _mm512_dpbusd_epi32(
                                  first[i], _mm512_loadu_si512(x + i * 2 * view.words_apart + 64),
                                  _mm512_set1_epi8(-128)));
            lanes[i] = _mm512_loadu_ps(view.lanes + (one + i) * view.lanes_apart + 16 * block);
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const Of held(rows, row + r * step, block, whole);
            const __m512 own = worth_of(view, block, rows.scales + (row + r * step) * rows.groups);
            __m512i upper[MANY], lower[MANY];
            for (int i = 0; i < MANY; i++) upper[i] = _mm512_setzero_si512(), lower[i] = first[i];
#pragma GCC unroll 8
            for (int j = 0; j < EACH; j++) {
                const __m512i codes = held.codes(j);
                const __m512i with_sign =
                    Of::WIDTH == 8 ? _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) : codes;
#pragma GCC unroll 2
                for (int i = 0; i < MANY; i++) {
                    const uint8_t *pair = x + i * 2 * view.words_apart + 128 * j;
                    upper[i] = _mm512_dpbusd_epi32(upper[i], codes, _mm512_loadu_si512(pair));
                    if (!BYTES)
                        lower[i] = _mm512_dpbusd_epi32(lower[i], _mm512_loadu_si512(pair + 64),
                                                       with_sign);
                }
            }
            for (int i = 0; i < MANY; i++)
                sums[i][r] = _mm512_fmadd_ps(
                    _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(upper[i], 8), lower[i])),
                    _mm512_mul_ps(own, lanes[i]), sums[i][r]);
        }
    };
    const int64_t blocks = rows.bytes[WIDEST] / 64;
    for (int64_t block = 0; block < blocks; block++) add(block, true);
    if (rows.bytes[WIDEST] % 64) add(blocks, false);
}

#include "turns.inl"
#include "code_tiles.inl"

// Each row's sixteen sums added up in the order of `_mm512_reduce_add_ps`.
inline __attribute__((always_inline)) __m512 reduced(const __m512 (&sums)[16]) {
    __m512 four[4];  // of rows i, 4 + i, 8 + i and 12 + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const auto halves = [&](__m512 a, __m512 b) __attribute__((always_inline)) {
            return _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xEE);
        };
        const __m512 low = halves(sums[i], sums[4 + i]), high = halves(sums[8 + i], sums[12 + i]);
        four[i] = _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xDD);
    }
    const auto pairs = [&](__m512 a, __m512 b) __attribute__((always_inline)) {
        return _mm512_shuffle_ps(a, b, 0x44) + _mm512_shuffle_ps(a, b, 0xEE);
    };
    const __m512 first = pairs(four[0], four[1]), second = pairs(four[2], four[3]);
    return _mm512_shuffle_ps(first, second, 0x88) + _mm512_shuffle_ps(first, second, 0xDD);
}

// Adds the products of rows that lie `step` apart to y [activations, apart].
template <int PLANES, int ROWS, int MANY, bool BYTES>
inline __attribute__((always_inline)) void some_code_dots(const CodeRows &rows, int64_t row,
                                                          int64_t step, const PlaneView &view,
                                                          int64_t one, float *y, int64_t apart) {
    __m512 sums[MANY][ROWS];
    sums_of_codes<PLANES, ROWS, MANY, BYTES>(rows, row, step, view, one, sums);
    if constexpr (ROWS == 16) {
        const __m512 found = reduced(sums[0]);
        float *to = y + one * apart + row;
        _mm512_storeu_ps(
            to, _mm512_fmadd_ps(_mm512_set1_ps(rows.factor), found, _mm512_loadu_ps(to)));
        return;
    }
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < MANY; i++)
            y[(one + i) * apart + row + r * step] += rows.factor * _mm512_reduce_add_ps(sums[i][r]);
}

constexpr int64_t SHORT = 256;  // bytes of a row of which sixteen share the nearest cache
constexpr int64_t AHEAD_BLOCKS = 4;  // of a longer row, asked for before they are needed

// Of sixteen rows' sums of a block those of each 32 columns: WIDTH neighbours, added up.
template <int WIDTH>
inline __attribute__((always_inline)) void by_pieces(__m512i (&rows)[16],
                                                     __m512i (&pieces)[16 / WIDTH]) {
    if constexpr (WIDTH == 1) {
        turn(rows);
        std::copy_n(rows, 16, pieces);
        return;
    }
    constexpr int EACH = WIDTH == 2 ? 2 : 1;  // vectors of four rows, a piece or a part in 128 bits
    __m512i fours[EACH][4];
    const auto pairs = [](__m512i a, __m512i b, auto which) __attribute__((always_inline)) {
        return _mm512_castps_si512(_mm512_shuffle_ps(
            _mm512_castsi512_ps(a), _mm512_castsi512_ps(b), decltype(which)::value));
    };
    const std::integral_constant<int, 0x88> even;
    const std::integral_constant<int, 0xDD> odd;
    const auto add = [&](__m512i a, __m512i b) __attribute__((always_inline)) {
        return _mm512_add_epi32(pairs(a, b, even), pairs(a, b, odd));
    };
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i first = add(rows[4 * i], rows[4 * i + 1]);
        const __m512i second = add(rows[4 * i + 2], rows[4 * i + 3]);
        if constexpr (WIDTH == 2) {
            fours[0][i] = pairs(first, second, even);
            fours[1][i] = pairs(first, second, odd);
        } else {
            fours[0][i] = add(first, second);
        }
    }
#pragma GCC unroll 2
    for (int of = 0; of < EACH; of++) {
        __m512i half[4], found[4];
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            half[i] = _mm512_shuffle_i32x4(fours[of][2 * i], fours[of][2 * i + 1], 0x44);
            half[2 + i] = _mm512_shuffle_i32x4(fours[of][2 * i], fours[of][2 * i + 1], 0xEE);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            found[2 * i] = _mm512_shuffle_i32x4(half[2 * i], half[2 * i + 1], 0x88);
            found[2 * i + 1] = _mm512_shuffle_i32x4(half[2 * i], half[2 * i + 1], 0xDD);
        }
        if constexpr (WIDTH == 8) {
            pieces[0] = _mm512_add_epi32(found[0], found[1]);
            pieces[1] = _mm512_add_epi32(found[2], found[3]);
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) pieces[EACH * i + of] = found[i];
        }
    }
}

// Exact sums of a block of sixteen rows, or of fewer, by its pieces.
template <int PLANES, bool BYTES, bool WHOLE>
inline __attribute__((always_inline)) void block_sums(
    const CodeRows &rows, int64_t row, int64_t count, int64_t block, const uint8_t *x,
    __m512i (&pieces)[16 / Held<PLANES>::WIDTH]) {
    typedef Held<PLANES> Of;
    constexpr int EACH = Of::EACH;
    const int64_t bytes = rows.bytes[Of::WIDEST];
    __m512i first = _mm512_setzero_si512();
    if (Of::WIDTH == 8 && !BYTES)  // codes less 128, so that they have a sign as the operation asks
        first = _mm512_sub_epi32(first, _mm512_dpbusd_epi32(first, _mm512_loadu_si512(x + 64),
                                                            _mm512_set1_epi8(-128)));
    __m512i sums[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
        if (!WHOLE && r >= count) {
            sums[r] = _mm512_setzero_si512();
            continue;
        }
        const int64_t at = row + r;
        if (WHOLE && bytes > SHORT)
            _mm_prefetch(reinterpret_cast<const char *>(rows.lines[Of::WIDEST] + at * bytes +
                                                        64 * (block + AHEAD_BLOCKS)),
                         _MM_HINT_T0);
        const Of held(rows, at, block, 64 * block + 64 <= bytes);
        __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int j = 0; j < EACH; j++)
            sum = _mm512_dpbusd_epi32(sum, held.codes(j), _mm512_loadu_si512(x + 128 * j));
        sum = _mm512_slli_epi32(sum, 8);
        if (Of::WIDTH == 8 && !BYTES) sum = _mm512_add_epi32(sum, first);
#pragma GCC unroll 8
        for (int j = 0; j < (BYTES ? 0 : EACH); j++) {
            const __m512i codes = held.codes(j);
            const __m512i with_sign =
                Of::WIDTH == 8 ? _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) : codes;
            sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(x + 128 * j + 64), with_sign);
        }
        sums[r] = sum;
    }
    by_pieces<Of::WIDTH>(sums, pieces);
}

// The products of up to sixteen rows with an activation, times their factor, added to y. Sums are
// exact and are scaled where those of tiles are, in their order (`code_runs.inl`): 32 columns at a
// time, or as many as share a group and a scale, up to 128.
template <int PLANES, bool BYTES, bool WHOLE>
inline __attribute__((always_inline)) void piece_dots(const CodeRows &rows, int64_t row,
                                                      int64_t count, const PlaneView &view,
                                                      int64_t one, float *y, int64_t apart) {
    typedef Held<PLANES> Of;
    constexpr int WIDTH = Of::WIDTH, PIECES = 16 / WIDTH, RUN = PanelView::RUN / PanelView::PIECE;
    constexpr int BLOCKS = PIECES < RUN ? RUN / PIECES : 1;  // that are scaled together
    const auto *x = reinterpret_cast<const uint8_t *>(view.words + one * view.words_apart);
    const float *lanes = view.lanes + one * view.lanes_apart;
    const int64_t bytes = rows.bytes[Of::WIDEST], size = view.group_size;
    const int most = rows.groups == 1 || size % 128 == 0 ? 4 : size % 64 == 0 ? 2 : 1;
    const __m512i places = _mm512_mullo_epi32(
        _mm512_min_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(static_cast<int>(count - 1))),
        _mm512_set1_epi32(static_cast<int>(rows.groups)));
    __m512 found = _mm512_setzero_ps(), own = found;
    int32_t group = -1;
    const auto add = [&](__m512i exact, int64_t piece) __attribute__((always_inline)) {
        if (view.groups[piece] != group) {
            group = view.groups[piece];
            const float *scales = rows.scales + row * rows.groups + group;
            own = WHOLE && rows.groups == 1 ? _mm512_loadu_ps(scales)
                                            : _mm512_i32gather_ps(places, scales, 4);
        }
        const __m512 scaled =
            _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(lanes[piece * WIDTH]));
        found = _mm512_fmadd_ps(scaled, own, found);
    };
    for (int64_t block = 0; 64 * block < bytes; block += BLOCKS) {
        __m512i parts[BLOCKS][PIECES];
#pragma GCC unroll 2
        for (int more = 0; more < BLOCKS; more++) {
            if (64 * (block + more) < bytes)
                block_sums<PLANES, BYTES, WHOLE>(rows, row, count, block + more,
                                                 x + 128 * Of::EACH * (block + more), parts[more]);
            else
                std::fill_n(parts[more], PIECES, _mm512_setzero_si512());
        }
        const __m512i *exact = parts[0];
#pragma GCC unroll 4
        for (int first = 0; first < BLOCKS * PIECES; first += RUN, exact += RUN) {
            const int64_t piece = block * PIECES + first;
            const float *scale = lanes + piece * WIDTH;
            const bool near = *scale == scale[WIDTH] && *scale == scale[2 * WIDTH] &&
                              *scale == scale[3 * WIDTH];
            if (!near || most == 1) {
#pragma GCC unroll 4
                for (int i = 0; i < RUN; i++) add(exact[i], piece + i);
                continue;
            }
            const __m512i low = _mm512_add_epi32(exact[0], exact[1]);
            const __m512i high = _mm512_add_epi32(exact[2], exact[3]);
            if (most == 4) {
                add(_mm512_add_epi32(low, high), piece);
            } else {
                add(low, piece);
                add(high, piece + 2);
            }
        }
    }
    const __mmask16 there = static_cast<__mmask16>((1u << count) - 1);
    float *to = y + one * apart + row;
    _mm512_mask_storeu_ps(to, there, _mm512_fmadd_ps(found, _mm512_set1_ps(rows.factor),
                                                     _mm512_maskz_loadu_ps(there, to)));
}

// Adds the products of rows of codes with a few activations, times their factor, to y
// [activations, apart], to the bit as `code_tiles` does.
template <int PLANES, bool BYTES>
void pieced_code_dots(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
                      float *y, int64_t apart) {
    for (int64_t one = 0; one < several; one++) {
        int64_t row = 0;
        for (; row + 16 <= count; row += 16)
            piece_dots<PLANES, BYTES, true>(rows, row, 16, view, one, y, apart);
        if (row < count)
            piece_dots<PLANES, BYTES, false>(rows, row, count - row, view, one, y, apart);
    }
}

// Adds the products of rows of codes with some activations, times their factor, to y [activations,
// apart]. A processor that fetches ahead follows four long lines, a quarter of all rows
// apart, at twice the rate of four short ones in one page.
template <int PLANES, int MANY, bool BYTES>
void code_dots_of(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t one, float *y,
                  int64_t apart) {
    int64_t row = 0;
    if (MANY == 1 && rows.bytes[Held<PLANES>::WIDEST] <= SHORT)
        for (; row + 16 <= count; row += 16)
            some_code_dots<PLANES, 16, 1, BYTES>(rows, row, 1, view, one, y, apart);
    const int64_t step = (count - row) / 4, first = row;
    for (; row < first + step; row++)
        some_code_dots<PLANES, 4, MANY, BYTES>(rows, row, step, view, one, y, apart);
    for (row = first + 4 * step; row < count; row++)
        some_code_dots<PLANES, 1, MANY, BYTES>(rows, row, 0, view, one, y, apart);
}

template <int PLANES, bool BYTES>
void few_code_dots(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
                   float *y, int64_t apart) {
    int64_t one = 0;
    for (; one + 2 <= several; one += 2)
        code_dots_of<PLANES, 2, BYTES>(rows, count, view, one, y, apart);
    if (one < several) code_dots_of<PLANES, 1, BYTES>(rows, count, view, one, y, apart);
}

template <int PLANES>
void code_dots(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
               float *y, int64_t apart) {
    auto run = view.bytes ? few_code_dots<PLANES, true> : few_code_dots<PLANES, false>;
    auto pieced = view.bytes ? pieced_code_dots<PLANES, true> : pieced_code_dots<PLANES, false>;
    constexpr bool QUICKER = PLANES == 4 || PLANES == 8;  // of one activation
    if (view.pieced && (view.in_one_order || (QUICKER && several == 1))) run = pieced;
    (view.panel ? code_tiles<PLANES> : run)(rows, count, view, several, y, apart);
}
