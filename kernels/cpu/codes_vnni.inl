// Products of codes by AVX-512 with VNNI: of few activations row by row, of more in tiles; a part of
// vnni.inl.

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

#include "code_tiles.inl"

// What `_mm512_reduce_add_ps` makes of sixteen sums of each of sixteen rows, in its order.
inline __attribute__((always_inline)) __m512 reduced(const __m512 (&sums)[16]) {
    __m512 four[4];  // of rows i, 4 + i, 8 + i and 12 + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const auto halves = [](__m512 a, __m512 b) __attribute__((always_inline)) {
            return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44),
                                 _mm512_shuffle_f32x4(a, b, 0xEE));
        };
        const __m512 low = halves(sums[i], sums[4 + i]), high = halves(sums[8 + i], sums[12 + i]);
        four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                                _mm512_shuffle_f32x4(low, high, 0xDD));
    }
    const auto pairs = [](__m512 a, __m512 b) __attribute__((always_inline)) {
        return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
    };
    const __m512 first = pairs(four[0], four[1]), second = pairs(four[2], four[3]);
    return _mm512_add_ps(_mm512_shuffle_ps(first, second, 0x88),
                         _mm512_shuffle_ps(first, second, 0xDD));
}

// Adds the products of rows that lie `step` apart to y [rows, apart].
template <int PLANES, int ROWS, int MANY, bool BYTES>
inline __attribute__((always_inline)) void some_code_dots(const CodeRows &rows, int64_t row,
                                                          int64_t step, const PlaneView &view,
                                                          int64_t one, float *y, int64_t apart) {
    __m512 sums[MANY][ROWS];
    sums_of_codes<PLANES, ROWS, MANY, BYTES>(rows, row, step, view, one, sums);
    if constexpr (ROWS == 16) {
        const __m512 found = reduced(sums[0]);
        _mm512_storeu_ps(y + row, _mm512_fmadd_ps(_mm512_set1_ps(rows.factor), found,
                                                  _mm512_loadu_ps(y + row)));
        return;
    }
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < MANY; i++)
            y[(row + r * step) * apart + one + i] += rows.factor * _mm512_reduce_add_ps(sums[i][r]);
}

constexpr int64_t SHORT = 256;  // bytes of a row of which sixteen share the nearest cache

// Adds the products of rows of codes with some activations, times their factor, to y [rows,
// activations]. A processor that fetches ahead follows four long lines, a quarter of all rows
// apart, at twice the rate of four short ones in one page.
template <int PLANES, int MANY, bool BYTES>
void code_dots_of(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t one, float *y,
                  int64_t apart) {
    int64_t row = 0;
    if (MANY == 1 && apart == 1 && rows.bytes[Held<PLANES>::WIDEST] <= SHORT)
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
                   float *y) {
    int64_t one = 0;
    for (; one + 2 <= several; one += 2)
        code_dots_of<PLANES, 2, BYTES>(rows, count, view, one, y, several);
    if (one < several) code_dots_of<PLANES, 1, BYTES>(rows, count, view, one, y, several);
}

template <int PLANES>
void code_dots(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
               float *y) {
    auto run = view.bytes ? few_code_dots<PLANES, true> : few_code_dots<PLANES, false>;
    (view.panel ? code_tiles<PLANES> : run)(rows, count, view, several, y);
}
