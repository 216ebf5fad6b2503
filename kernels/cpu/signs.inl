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

constexpr int64_t SIGN_BYTES = 32;  // of a row, for which tables lie in a core's first cache

// MANY sums of all rows over a part of the columns: what four signs make of four numbers is looked
// up, of sixteen rows at once.
template <int MANY>
void add_sign_sums(const uint8_t *signs, int64_t bytes, int64_t first, int64_t end, int64_t rows,
                   const float *x, float *y, int64_t apart) {
    alignas(64) float ways[MANY][2 * SIGN_BYTES][16];
    for (int one = 0; one < MANY; one++)
        for (int64_t four = 0; four < 2 * (end - first); four++)
            _mm512_store_ps(ways[one][four], ways_of(x + 8 * (one * bytes + first) + 4 * four));
    for (int64_t row = 0; row < rows; row += 16) {
        const __mmask16 there = rows - row >= 16 ? 0xFFFF : (1u << (rows - row)) - 1;
        __m512 sums[MANY];
        for (int one = 0; one < MANY; one++)
            sums[one] = _mm512_maskz_loadu_ps(there, y + one * apart + row);
        for (int64_t byte = first; byte < end; byte += 4) {
            __m512i words = sign_words(signs + row * bytes, bytes, byte / 4, there);
            const int64_t fours = 2 * std::min<int64_t>(4, end - byte);
            for (int64_t four = 2 * (byte - first); four < 2 * (byte - first) + fours; four++) {
                for (int one = 0; one < MANY; one++)
                    sums[one] = _mm512_add_ps(
                        sums[one],
                        _mm512_permutexvar_ps(words, _mm512_load_ps(ways[one][four])));
                words = _mm512_srli_epi32(words, 4);
            }
        }
        for (int one = 0; one < MANY; one++)
            _mm512_mask_storeu_ps(y + one * apart + row, there, sums[one]);
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
            add_sign_sums<4>(signs, bytes, first, end, rows, x + 8 * one * bytes, y + one * apart,
                             apart);
        for (; one < many; one++)
            add_sign_sums<1>(signs, bytes, first, end, rows, x + 8 * one * bytes, y + one * apart,
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
