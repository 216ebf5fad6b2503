// Loops of AVX-512 with VNNI, VBMI and GFNI, where those of AVX-512 differ; included by
// loops.cpp alone.
//
// Codes stay bytes: `vpdpbusd` takes each with the upper byte of an activation and with its lower
// one, so that sums are those of integers of 16 bits. Codes of several planes become one first.

// The sums of a block by what its groups and the activation's columns are worth.
inline __attribute__((always_inline)) __m512 worth_of(const PlaneView &view, int64_t block,
                                                      const float *scales) {
    if (view.whole) return _mm512_set1_ps(scales[view.first[block]]);
    return _mm512_permutexvar_ps(_mm512_loadu_si512(view.places + 16 * block),
                                 _mm512_loadu_ps(scales + view.first[block]));
}

inline __attribute__((always_inline)) __m512i bytes_at(const uint8_t *from, int64_t count) {
    if (count >= 64) return _mm512_loadu_si512(from);
    return _mm512_maskz_loadu_epi8(count > 0 ? (1ull << count) - 1 : 0, from);
}

// Codes of a narrower plane, so many times as narrow, in the bytes of their neighbours' codes.
template <int TIMES>
inline __attribute__((always_inline)) __m512i spread_codes(const uint8_t *from, int64_t count) {
    const __m512i turns = TIMES == 2 ? _mm512_set1_epi64(0x1C1814100C080400)
                                     : _mm512_set1_epi64(0x0E0C0A0806040200);
    const __m512i held = count >= 64 / TIMES
                             ? (TIMES == 2 ? _mm512_castsi256_si512(_mm256_loadu_si256(
                                                 reinterpret_cast<const __m256i *>(from)))
                                           : _mm512_castsi128_si512(_mm_loadu_si128(
                                                 reinterpret_cast<const __m128i *>(from))))
                             : bytes_at(from, count);
    const __m512i wide = TIMES == 2 ? _mm512_cvtepu32_epi64(_mm512_castsi512_si256(held))
                                    : _mm512_cvtepu16_epi64(_mm512_castsi512_si128(held));
    return _mm512_multishift_epi64_epi8(turns, wide);
}

// So many bits of each byte, from one place to another, by one product of matrices of bits: a row of
// the matrix, the highest byte first, names what makes a bit.
inline __attribute__((always_inline)) __m512i moved(__m512i held, int from, int bits, int to) {
    uint64_t rows = 0;
    for (int i = 0; i < bits; i++) rows |= 1ull << (from + i) << 8 * (7 - to - i);
    return _mm512_gf2p8affine_epi64_epi8(held, _mm512_set1_epi64(static_cast<int64_t>(rows)), 0);
}

// What a block of a row holds in each of its planes; what lies behind the row's end is not read.
template <int PLANES>
struct Held {
    static constexpr int WIDTH = PLANES & 8 ? 8 : PLANES & 4 ? 4 : PLANES & 2 ? 2 : 1;
    static constexpr int EACH = 8 / WIDTH, LOWER = PLANES & (WIDTH - 1);
    static constexpr int WIDEST = WIDTH == 8 ? 3 : WIDTH / 2;
    __m512i widest, ones, twos;

    Held() = default;

    __attribute__((always_inline)) Held(const CodeRows &rows, int64_t row, int64_t block,
                                        bool whole) {
        const auto at = [&](int plane, int each) __attribute__((always_inline)) {
            return rows.lines[plane] + row * rows.bytes[plane] + block * each;
        };
        const auto left = [&](int plane, int each) __attribute__((always_inline)) {
            return whole ? each : rows.bytes[plane] - block * each;
        };
        widest = bytes_at(at(WIDEST, 64), left(WIDEST, 64));
        constexpr int OF_ONES = 64 / WIDTH;
        if (LOWER & 1) ones = spread_codes<WIDTH>(at(0, OF_ONES), left(0, OF_ONES));
        if (LOWER & 2) twos = spread_codes<2>(at(1, 32), left(1, 32));
    }

    // The j-th code of each byte.
    __attribute__((always_inline)) __m512i codes(int j) const {
        if (WIDTH == 8) return widest;
        if (!LOWER && !j) return _mm512_and_si512(widest, _mm512_set1_epi8((1 << WIDTH) - 1));
        const __m512i upper = moved(widest, WIDTH * j, WIDTH, LOWER);
        if (!LOWER) return upper;
        const __m512i two = LOWER & 2 ? moved(twos, 2 * j, 2, LOWER & 1) : upper;
        const __m512i one = LOWER & 1 ? moved(ones, j, 1, 0) : upper;
        return _mm512_or_si512(_mm512_or_si512(upper, two), one);
    }
};

#include "codes_vnni.inl"
#include "halves.inl"

// Codes of four bits as numbers of 16 bits, in the order of bytes that `Fixed` deals them in.
inline __attribute__((always_inline)) void look_up_words(__m512i held, const Table &table,
                                                         __m512i found[4]) {
    const auto everywhere = [](const uint8_t *bytes) __attribute__((always_inline)) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)));
    };
    const __m512i low = everywhere(table.low), high = everywhere(table.high);
    for (int which = 0; which < 2; which++) {
        const __m512i codes =
            _mm512_and_si512(which ? _mm512_srli_epi16(held, 4) : held, _mm512_set1_epi8(15));
        const __m512i a = _mm512_shuffle_epi8(low, codes), b = _mm512_shuffle_epi8(high, codes);
        found[2 * which] = _mm512_unpacklo_epi8(a, b);
        found[2 * which + 1] = _mm512_unpackhi_epi8(a, b);
    }
}

template <int MANY>
inline __attribute__((always_inline)) void some_table_dots(const uint8_t *line, int64_t bytes,
                                                           const Table &table,
                                                           const PlaneView &view, int64_t one,
                                                           const float *scales, float *y,
                                                           int64_t apart) {
    __m512 sums[MANY];
    for (auto &sum : sums) sum = _mm512_setzero_ps();
    for (int64_t block = 0; 64 * block < bytes; block++) {
        __m512i values[4];
        look_up_words(bytes_at(line + 64 * block, bytes - 64 * block), table, values);
        const __m512 own = worth_of(view, block, scales);
        for (int i = 0; i < MANY; i++) {
            const int16_t *x = view.words + (one + i) * view.words_apart + 128 * block;
            __m512 found[4];  // one more sum of such products would leave 32 bits
            for (int j = 0; j < 4; j++)
                found[j] = _mm512_cvtepi32_ps(
                    _mm512_madd_epi16(values[j], _mm512_loadu_si512(x + 32 * j)));
            const __m512 lanes =
                _mm512_loadu_ps(view.lanes + (one + i) * view.lanes_apart + 16 * block);
            sums[i] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_add_ps(found[0], found[1]),
                                                    _mm512_add_ps(found[2], found[3])),
                                      _mm512_mul_ps(own, lanes), sums[i]);
        }
    }
    for (int i = 0; i < MANY; i++) y[(one + i) * apart] += _mm512_reduce_add_ps(sums[i]);
}

// Adds the products of a row of codes into a table with all activations to y [activations, apart].
void table_dots(const uint8_t *line, int64_t bytes, const Table &table, const PlaneView &view,
                int64_t count, const float *scales, float *y, int64_t apart) {
    int64_t one = 0;
    for (; one + 4 <= count; one += 4)
        some_table_dots<4>(line, bytes, table, view, one, scales, y, apart);
    for (; one < count; one++) some_table_dots<1>(line, bytes, table, view, one, scales, y, apart);
}

// Of every 32 columns the even ones, then the odd ones, as the halves of words come apart.
void deal_pairs(const float *x, int64_t columns, float *to) {
    for (int64_t start = 0; start < columns; start += 32)
        for (int64_t i = 0; i < 32; i++) {
            const int64_t column = start + i % 16 * 2 + i / 16;
            to[start + i] = column < columns ? x[column] : 0;
        }
}

// Words behind each other at the places that a mask marks, zero elsewhere. Some processors wait for
// what the target held before, unless it was just cleared, which a compiler would leave out.
inline __attribute__((always_inline)) __m512i expanded(uint32_t mask, __m512i words) {
    __m512i cleared;
    __asm__("vpxor %x0, %x0, %x0" : "=x"(cleared));
    return _mm512_mask_expand_epi16(cleared, mask, words);
}

constexpr int64_t AHEAD = 1024;  // words: what is asked of memory before it is needed

// 32 columns of a row, of which a mask marks those that have values; moves behind those.
inline __attribute__((always_inline)) __m512i next_pairs(const uint8_t *mask, int64_t k,
                                                         int64_t columns, const uint16_t *&values,
                                                         const uint16_t *end, int64_t ahead) {
    uint32_t marked = 0;
    if (k + 32 <= columns)
        __builtin_memcpy(&marked, mask + k / 8, 4);
    else
        __builtin_memcpy(&marked, mask + k / 8, (columns - k + 7) / 8);
    const int64_t there = end - values;
    const __m512i next = there >= 32 ? _mm512_loadu_si512(values)
                                     : _mm512_maskz_loadu_epi16((1u << there) - 1, values);
    _mm_prefetch(reinterpret_cast<const char *>(values + ahead), _MM_HINT_T0);
    values += __builtin_popcount(marked);
    return expanded(marked, next);
}

// One activation, dealt, with the values in bfloat16 that a mask marks; moves behind those.
float masked_pairs_dot(const uint8_t *mask, const float *x, int64_t columns,
                       const uint16_t *&left, const uint16_t *end) {
    const uint16_t *values = left;
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int64_t k = 0; k < columns; k += 32) {
        const __m512i found = next_pairs(mask, k, columns, values, end, AHEAD);
        even = _mm512_fmadd_ps(lower_halves(found), _mm512_loadu_ps(x + k), even);
        odd = _mm512_fmadd_ps(upper_halves(found), _mm512_loadu_ps(x + k + 16), odd);
    }
    left = values;
    return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

// Values in bfloat16 at the places that a mask marks, in float32 and dealt; moves behind those.
void expand_pairs(const uint8_t *mask, int64_t columns, const uint16_t *&left, const uint16_t *end,
                  float *out) {
    const uint16_t *values = left;
    for (int64_t k = 0; k < columns; k += 32) {
        const __m512i found = next_pairs(mask, k, columns, values, end, TILE_COLUMNS / 2);
        _mm512_storeu_ps(out + k, lower_halves(found));
        _mm512_storeu_ps(out + k + 16, upper_halves(found));
    }
    left = values;
}

// Codes of four bits as values of a table of sixteen, 32 at a time.
void look_up_codes(const uint8_t *codes, const float *table, int64_t count, float *out) {
    const __m512 values = _mm512_loadu_ps(table);
    const __m128i low = _mm_set1_epi8(15);
    for (int64_t k = 0; k < count; k += 32, out += 32) {
        const int64_t bytes = std::min<int64_t>(16, (count - k + 1) / 2);
        const __m128i held = _mm_maskz_loadu_epi8((1u << bytes) - 1, codes + k / 2);
        const __m128i first = _mm_and_si128(held, low);
        const __m128i second = _mm_and_si128(_mm_srli_epi16(held, 4), low);
        _mm512_storeu_ps(out, _mm512_permutexvar_ps(
                                  _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(first, second)), values));
        _mm512_storeu_ps(out + 16,
                         _mm512_permutexvar_ps(
                             _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(first, second)), values));
    }
}

// Masks of fours of which two positions are held: a byte for a byte; whole blocks of 64 are read
// and written where there are as many.
void masks_of_fours(const uint8_t *positions, int64_t bytes, uint8_t *masks) {
    // By the positions of two entries: the first in the lower two bits.
    const __m512i bits = _mm512_broadcast_i32x4(
        _mm_setr_epi8(1, 3, 5, 9, 3, 2, 6, 10, 5, 6, 4, 12, 9, 10, 12, 8));
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t done = 0; done < bytes; done += 64) {
        const __m512i held = bytes_at(positions + done, bytes - done);
        const __m512i first = _mm512_shuffle_epi8(bits, _mm512_and_si512(held, low));
        const __m512i second = _mm512_shuffle_epi8(
            bits, _mm512_and_si512(_mm512_srli_epi16(held, 4), low));
        const __m512i found = _mm512_or_si512(first, _mm512_slli_epi16(second, 4));
        const int64_t several = std::min<int64_t>(64, bytes - done);
        _mm512_mask_storeu_epi8(masks + done, ~0ull >> (64 - several), found);
    }
}
