// Rows of bfloat16 numbers whose exponents are codes of four bits, by AVX-512; part of the loops for
// VNNI.

// An activation as the words of 64 columns come apart: [blocks, 4, 16], zero behind its end.
void deal_window(const float *x, int64_t columns, float *to) {
    for (int64_t start = 0; start < columns; start += 64)
        for (int64_t part = 0; part < 4; part++)
            for (int64_t i = 0; i < 16; i++) {
                const int64_t column = start + i / 4 * 16 + part / 2 * 8 + i % 4 * 2 + part % 2;
                *to++ = column < columns ? x[column] : 0;
            }
}

// One row with one activation, dealt. `high` and `low` give by its code where an exponent lies in
// the upper and in the lower byte of a number.
float window_dot(const uint8_t *rest, const uint8_t *codes, const uint8_t *high,
                 const uint8_t *low, const float *x, int64_t columns) {
    const __m512i highs = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)high));
    const __m512i lows = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)low));
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    __m512 sums[4] = {};
    for (int64_t k = 0; k < columns; k += 64, x += 64) {
        const int64_t left = columns - k;
        __m512i held;
        __m256i pairs;
        if (left >= 64) {
            held = _mm512_loadu_si512(rest + k);
            pairs = _mm256_loadu_si256((const __m256i *)(codes + k / 2));
        } else {
            held = _mm512_maskz_loadu_epi8(~0ull >> (64 - left), rest + k);
            pairs = _mm256_maskz_loadu_epi8(~0u >> (32 - (left + 1) / 2), codes + k / 2);
        }
        const __m512i words = _mm512_cvtepu8_epi16(pairs);
        const __m512i found = _mm512_and_si512(
            _mm512_or_si512(words, _mm512_slli_epi16(words, 4)), nibble);
        // upper byte: sign and seven bits of the exponent; lower: its last bit and the mantissa
        const __m512i top = _mm512_ternarylogic_epi32(_mm512_shuffle_epi8(highs, found), held, sign,
                                                      0xF8);
        const __m512i bottom = _mm512_ternarylogic_epi32(_mm512_shuffle_epi8(lows, found), held,
                                                         sign, 0xF4);
        const __m512i first = _mm512_unpacklo_epi8(bottom, top);
        const __m512i second = _mm512_unpackhi_epi8(bottom, top);
        sums[0] = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(first, 16), _mm512_loadu_ps(x),
                                  sums[0]);
        sums[1] = _mm512_fmadd_ps((__m512)_mm512_and_si512(first, upper), _mm512_loadu_ps(x + 16),
                                  sums[1]);
        sums[2] = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(second, 16), _mm512_loadu_ps(x + 32),
                                  sums[2]);
        sums[3] = _mm512_fmadd_ps((__m512)_mm512_and_si512(second, upper), _mm512_loadu_ps(x + 48),
                                  sums[3]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]),
                                              _mm512_add_ps(sums[2], sums[3])));
}
