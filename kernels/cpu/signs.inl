// Sums of numbers with signs; a part of loops.inl.

#ifdef HAS_AVX512
// The sixteen ways to give four numbers signs, by bits that say which are positive.
inline __attribute__((always_inline)) __m512 ways_of(const float *four) {
    __m512 found = _mm512_setzero_ps();
    const __mmask16 positive[] = {0xAAAA, 0xCCCC, 0xF0F0, 0xFF00};
    for (int i = 0; i < 4; i++) {
        const __m512 number = _mm512_set1_ps(four[i]);
        found = _mm512_mask_add_ps(_mm512_sub_ps(found, number), positive[i], found, number);
    }
    return found;
}

// A word of the signs of each of up to sixteen rows; where a row ends within it, its last bytes.
inline __attribute__((always_inline)) __m512i sign_words(const uint8_t *signs, int64_t bytes,
                                                         int64_t word, __mmask16 rows) {
    const __m512i apart = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
        _mm512_set1_epi32(static_cast<int32_t>(bytes)));
    const int64_t behind = 4 * (word + 1) - bytes;
    if (bytes < 4) {
        alignas(64) uint32_t found[16] = {};
        for (int i = 0; rows >> i; i++) __builtin_memcpy(found + i, signs + i * bytes, bytes & 3);
        return _mm512_load_si512(found);
    }
    const uint8_t *from = signs + 4 * word - std::max<int64_t>(behind, 0);
    const __m512i found =
        _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), rows, apart, from, 1);
    return behind > 0 ? _mm512_srl_epi32(found, _mm_cvtsi64_si128(8 * behind)) : found;
}

// Four words of each of sixteen rows, which four lanes each hold of one row at first.
inline __attribute__((always_inline)) void four_sign_words(const uint8_t *signs, int64_t bytes,
                                                           __m512i (&words)[4]) {
    const auto row = [&](int i) __attribute__((always_inline)) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(signs + i * bytes));
    };
    __m512i held[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        held[i] = _mm512_castsi128_si512(row(i));
        held[i] = _mm512_inserti32x4(held[i], row(4 + i), 1);
        held[i] = _mm512_inserti32x4(held[i], row(8 + i), 2);
        held[i] = _mm512_inserti32x4(held[i], row(12 + i), 3);
    }
    const __m512i low = _mm512_unpacklo_epi32(held[0], held[1]);
    const __m512i next = _mm512_unpacklo_epi32(held[2], held[3]);
    const __m512i high = _mm512_unpackhi_epi32(held[0], held[1]);
    const __m512i last = _mm512_unpackhi_epi32(held[2], held[3]);
    words[0] = _mm512_unpacklo_epi64(low, next);
    words[1] = _mm512_unpackhi_epi64(low, next);
    words[2] = _mm512_unpacklo_epi64(high, last);
    words[3] = _mm512_unpackhi_epi64(high, last);
}

constexpr int64_t SIGN_BYTES = 32;  // of a row, for which tables lie in a core's first cache

// What four signs make of four numbers, for a part of the columns.
template <int MANY>
struct Ways {
    alignas(64) float of[MANY][2 * SIGN_BYTES][16];

    __attribute__((always_inline)) Ways(const float *x, int64_t apart, int64_t bytes) {
        for (int one = 0; one < MANY; one++)
            for (int64_t four = 0; four < 2 * bytes; four++)
                _mm512_store_ps(of[one][four], ways_of(x + one * apart + 4 * four));
    }
};

// Adds MANY sums of all rows over a part of the columns, looked up for sixteen rows at once.
template <int MANY>
inline __attribute__((always_inline)) void add_sign_sums(const uint8_t *signs, int64_t bytes,
                                                         int64_t first, int64_t end, int64_t rows,
                                                         const Ways<MANY> &ways, float *y,
                                                         int64_t apart) {
    for (int64_t row = 0; row < rows; row += 16) {
        const __mmask16 there = rows - row >= 16 ? 0xFFFF : (1u << (rows - row)) - 1;
        __m512 sums[MANY];
        for (int one = 0; one < MANY; one++)
            sums[one] = _mm512_maskz_loadu_ps(there, y + one * apart + row);
        const auto add = [&](__m512i words, int64_t byte, int64_t fours)
                             __attribute__((always_inline)) {
            for (int64_t four = 2 * (byte - first); four < 2 * (byte - first) + fours; four++) {
                for (int one = 0; one < MANY; one++)
                    sums[one] = _mm512_add_ps(
                        sums[one],
                        _mm512_permutexvar_ps(words, _mm512_load_ps(ways.of[one][four])));
                words = _mm512_srli_epi32(words, 4);
            }
        };
        int64_t byte = first;
        for (; MANY == 1 && byte + 16 <= end && there == 0xFFFF; byte += 16) {
            __m512i words[4];
            four_sign_words(signs + row * bytes + byte, bytes, words);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) add(words[i], byte + 4 * i, 8);
        }
        for (; byte < end; byte += 4)
            add(sign_words(signs + row * bytes, bytes, byte / 4, there), byte,
                2 * std::min<int64_t>(4, end - byte));
        for (int one = 0; one < MANY; one++)
            _mm512_mask_storeu_ps(y + one * apart + row, there, sums[one]);
    }
}

template <int MANY>
void some_sign_sums(const uint8_t *signs, int64_t bytes, int64_t first, int64_t end, int64_t rows,
                    const float *x, float *y, int64_t apart) {
    const Ways<MANY> ways(x + 8 * first, 8 * bytes, end - first);
    add_sign_sums<MANY>(signs, bytes, first, end, rows, ways, y, apart);
}

// Sums [groups, planes, rows] of numbers x [8 * bytes] with the signs of each group of columns.
void sign_groups(const SignPlanes &held, const float *x, float *sums) {
    for (int64_t group = 0; group < held.bytes; group += held.group_bytes) {
        const int64_t behind = std::min(held.bytes, group + held.group_bytes);
        std::fill_n(sums, held.planes * held.rows, 0.0f);
        for (int64_t first = group; first < behind; first += SIGN_BYTES) {
            const int64_t end = std::min(behind, first + SIGN_BYTES);
            const Ways<1> ways(x + 8 * first, 0, end - first);
            for (int64_t plane = 0; plane < held.planes; plane++)
                add_sign_sums<1>(held.signs + plane * held.apart, held.bytes, first, end, held.rows,
                                 ways, sums + plane * held.rows, 0);
        }
        sums += held.planes * held.rows;
    }
}
#else
// Sum of the values that bytes of a mask mark.
inline float marked(const uint8_t *mask, const float *values, int64_t bytes) {
    EightFloats sums = {};
    const Eight bits = {1, 2, 4, 8, 16, 32, 64, 128};
    for (int64_t byte = 0; byte < bytes; byte++) {
        Eight next;
        __builtin_memcpy(&next, values + 8 * byte, 32);
        sums += (EightFloats)(next & (Eight)(((Eight{} + mask[byte]) & bits) != 0));
    }
    return all_of(sums);
}
#endif

// Sums y [many, rows], which lie `apart`, of numbers x [many, 8 * bytes]: those that a row marks
// are added, the others subtracted.
void sign_sums(const uint8_t *signs, int64_t bytes, int64_t rows, const float *x, int64_t many,
               float *y, int64_t apart) {
#ifdef HAS_AVX512
    for (int64_t one = 0; one < many; one++) std::fill_n(y + one * apart, rows, 0.0f);
    for (int64_t first = 0; first < bytes; first += SIGN_BYTES) {
        const int64_t end = std::min(bytes, first + SIGN_BYTES);
        int64_t one = 0;
        for (; one + 4 <= many; one += 4)
            some_sign_sums<4>(signs, bytes, first, end, rows, x + 8 * one * bytes, y + one * apart,
                             apart);
        for (; one < many; one++)
            some_sign_sums<1>(signs, bytes, first, end, rows, x + 8 * one * bytes, y + one * apart,
                             apart);
    }
#else
    for (int64_t one = 0; one < many; one++, x += 8 * bytes, y += apart) {
        float whole = 0;
        for (int64_t k = 0; k < 8 * bytes; k++) whole += x[k];
        for (int64_t row = 0; row < rows; row++)
            y[row] = 2 * marked(signs + row * bytes, x, bytes) - whole;
    }
#endif
}
