// Rows that become columns, by AVX-512; included by the loops that turn some.

// Sixteen registers of sixteen words: rows become columns.
inline __attribute__((always_inline)) void turn(__m512i (&held)[16]) {
    __m512i half[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        half[2 * i] = _mm512_unpacklo_epi32(held[2 * i], held[2 * i + 1]);
        half[2 * i + 1] = _mm512_unpackhi_epi32(held[2 * i], held[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            held[4 * i + 2 * j] = _mm512_unpacklo_epi64(half[4 * i + j], half[4 * i + 2 + j]);
            held[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(half[4 * i + j], half[4 * i + 2 + j]);
        }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            half[8 * i + j] = _mm512_shuffle_i32x4(held[8 * i + j], held[8 * i + 4 + j], 0x88);
            half[8 * i + 4 + j] = _mm512_shuffle_i32x4(held[8 * i + j], held[8 * i + 4 + j], 0xDD);
        }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        held[j] = _mm512_shuffle_i32x4(half[j], half[8 + j], 0x88);
        held[8 + j] = _mm512_shuffle_i32x4(half[j], half[8 + j], 0xDD);
    }
}

// Numbers [rows, columns] to [columns, 32]; what lies behind the last row is one of its numbers.
inline void turn_rows(const float *from, int64_t rows, int64_t columns, float *to) {
    for (int64_t column = 0; column < columns; column += 16)
        for (int64_t half = 0; half < 2; half++) {
            const __mmask16 there = columns - column < 16 ? (1u << (columns - column)) - 1 : 0xFFFF;
            __m512i held[16];
            for (int64_t i = 0; i < 16; i++)
                held[i] = _mm512_maskz_loadu_epi32(
                    there, from + std::min(16 * half + i, rows - 1) * columns + column);
            turn(held);
            for (int64_t i = 0; i < std::min<int64_t>(16, columns - column); i++)
                _mm512_storeu_si512(to + 32 * (column + i) + 16 * half, held[i]);
        }
}
