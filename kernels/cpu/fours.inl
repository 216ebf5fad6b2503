// Rows of two of every four numbers in bfloat16 with one activation; a part of loops.inl.

#ifdef HAS_AVX512
// The sums of up to four rows: of 32 columns those are looked up that sixteen values stand at.
template <int ROWS>
inline __attribute__((always_inline)) void some_fours(const uint8_t *positions, int64_t bytes,
                                                      const uint16_t *values, int64_t columns,
                                                      const float *x, float *y) {
    const int64_t half = columns / 2;
    const __m512i turns =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i fours =
        _mm512_set_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
    __m512 sums[ROWS];
    for (auto &sum : sums) sum = _mm512_setzero_ps();
    const auto add = [&](int64_t k, int64_t held, __mmask16 there) __attribute__((always_inline)) {
        const __m512 low = _mm512_loadu_ps(x + 2 * k), high = _mm512_loadu_ps(x + 2 * k + 16);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            uint32_t word = 0;
            __builtin_memcpy(&word, positions + r * bytes + k / 4, held);
            const __m512i turned =
                _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int32_t>(word)), turns);
            const __m512i places =
                _mm512_ternarylogic_epi32(turned, _mm512_set1_epi32(3), fours, 0xEA);
            const __m512i wide = _mm512_slli_epi32(
                _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, values + r * half + k)), 16);
            sums[r] = _mm512_fmadd_ps(_mm512_castsi512_ps(wide),
                                      _mm512_permutex2var_ps(low, places, high), sums[r]);
        }
    };
    int64_t k = 0;
    for (; k + 16 <= half; k += 16) add(k, 4, 0xFFFF);
    if (k < half) add(k, bytes - k / 4, static_cast<__mmask16>((1u << (half - k)) - 1));
    for (int r = 0; r < ROWS; r++) y[r] = _mm512_reduce_add_ps(sums[r]);
}

// `x` has whole 32 columns, zero behind its end.
void fours_rows(const uint8_t *positions, int64_t bytes, const uint16_t *values, int64_t count,
                int64_t columns, const float *x, float *y) {
    int64_t row = 0;
    for (; row + 4 <= count; row += 4)
        some_fours<4>(positions + row * bytes, bytes, values + row * (columns / 2), columns, x,
                      y + row);
    for (; row < count; row++)
        some_fours<1>(positions + row * bytes, bytes, values + row * (columns / 2), columns, x,
                      y + row);
}
#endif
