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

// Where an exponent lies in the upper and in the lower byte of a number, by its code.
struct Window {
    __m512i high, low;

    __attribute__((always_inline)) Window(const uint8_t *highs, const uint8_t *lows)
        : high(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)highs))),
          low(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)lows))) {}

    // 64 columns of a row, or what is left of it, in float32 and dealt.
    __attribute__((always_inline)) void join(const uint8_t *rest, const uint8_t *codes,
                                             int64_t left, __m512 joined[4]) const {
        const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
        const __m512i nibble = _mm512_set1_epi8(15);
        __m512i held;
        __m256i pairs;
        if (left >= 64) {
            held = _mm512_loadu_si512(rest);
            pairs = _mm256_loadu_si256((const __m256i *)codes);
        } else {
            held = _mm512_maskz_loadu_epi8(~0ull >> (64 - left), rest);
            pairs = _mm256_maskz_loadu_epi8(~0u >> (32 - (left + 1) / 2), codes);
        }
        const __m512i words = _mm512_cvtepu8_epi16(pairs);
        const __m512i found = _mm512_and_si512(
            _mm512_or_si512(words, _mm512_slli_epi16(words, 4)), nibble);
        // upper byte: sign and seven bits of the exponent; lower: its last bit and the mantissa
        const __m512i top =
            _mm512_ternarylogic_epi32(_mm512_shuffle_epi8(high, found), held, sign, 0xF8);
        const __m512i bottom =
            _mm512_ternarylogic_epi32(_mm512_shuffle_epi8(low, found), held, sign, 0xF4);
        const __m512i first = _mm512_unpacklo_epi8(bottom, top);
        const __m512i second = _mm512_unpackhi_epi8(bottom, top);
        joined[0] = lower_halves(first), joined[1] = upper_halves(first);
        joined[2] = lower_halves(second), joined[3] = upper_halves(second);
    }
};

// One row with one activation, dealt.
float window_dot(const uint8_t *rest, const uint8_t *codes, const uint8_t *high,
                 const uint8_t *low, const float *x, int64_t columns) {
    const Window window(high, low);
    __m512 sums[4] = {}, joined[4];
    for (int64_t k = 0; k < columns; k += 64) {
        window.join(rest + k, codes + k / 2, columns - k, joined);
        for (int part = 0; part < 4; part++)
            sums[part] =
                _mm512_fmadd_ps(joined[part], _mm512_loadu_ps(x + k + 16 * part), sums[part]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]),
                                              _mm512_add_ps(sums[2], sums[3])));
}

// A part of a row in float32, dealt; zero behind its end but for what its last exponent says.
void join_window(const uint8_t *rest, const uint8_t *codes, const uint8_t *high,
                 const uint8_t *low, int64_t columns, float *out) {
    const Window window(high, low);
    __m512 joined[4];
    for (int64_t k = 0; k < columns; k += 64) {
        window.join(rest + k, codes + k / 2, columns - k, joined);
        for (int part = 0; part < 4; part++) _mm512_storeu_ps(out + k + 16 * part, joined[part]);
    }
}
