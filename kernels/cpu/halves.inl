// Numbers in bfloat16 two by two, by AVX-512; included by the loops that read them so.

// Of pairs of numbers in bfloat16 the first, and the second, in float32.
inline __attribute__((always_inline)) __m512 lower_halves(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

inline __attribute__((always_inline)) __m512 upper_halves(__m512i pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}
