// Products of numbers that lie dense or behind masks, in float32; a part of loops.inl.

template <typename Number>
inline __attribute__((always_inline)) EightFloats floats_at(const Number *from, int64_t count) {
    if (count >= 8) return floats_at(from);
    Number several[8] = {};
    std::copy_n(from, count, several);
    return floats_at(several);
}

inline __attribute__((always_inline)) float all_of(EightFloats sums) {
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Up to four rows with one or two activations; each sum in the same order, whatever stands beside.
template <typename Number, int MANY>
inline __attribute__((always_inline)) void some_dots(const Number *rows, int64_t count,
                                                     const float *x, int64_t columns, float *y,
                                                     int64_t apart) {
    const Number *of[4];
    for (int64_t i = 0; i < 4; i++) of[i] = rows + std::min(i, count - 1) * columns;
    EightFloats sums[MANY][4] = {};
    const auto add = [&](int64_t k, auto read) __attribute__((always_inline)) {
        EightFloats several[MANY];
        for (int one = 0; one < MANY; one++) several[one] = read(x + one * columns + k);
        for (int i = 0; i < 4; i++) {
            const EightFloats row = read(of[i] + k);
            for (int one = 0; one < MANY; one++) sums[one][i] += row * several[one];
        }
    };
    int64_t k = 0;
    for (; k + 8 <= columns; k += 8) add(k, [](auto from) { return floats_at(from); });
    if (k < columns) add(k, [&](auto from) { return floats_at(from, columns - k); });
    for (int one = 0; one < MANY; one++)
        for (int64_t i = 0; i < count; i++) y[one * apart + i] = all_of(sums[one][i]);
}

#ifdef HAS_AVX512
#include "turns.inl"

// Sixteen columns of two rows, of which `first` is a half of the columns and `second` the other,
// each as eight of both rows.
struct OfTwoRows {
    __m512 first, second;

    __attribute__((always_inline)) OfTwoRows(const uint16_t *upper, const uint16_t *lower,
                                             __mmask16 there) {
        const __m512i both = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(there, upper)),
            _mm256_maskz_loadu_epi16(there, lower), 1);
        // Words to the upper halves of numbers, of which the lower are zero.
        const __m512i places = _mm512_set_epi32(0x170000, 0x160000, 0x150000, 0x140000, 0x130000,
                                                0x120000, 0x110000, 0x100000, 0x70000, 0x60000,
                                                0x50000, 0x40000, 0x30000, 0x20000, 0x10000, 0);
        const __m512i behind = _mm512_add_epi32(places, _mm512_set1_epi32(0x80000));
        first = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, places, both));
        second = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, behind, both));
    }

    __attribute__((always_inline)) OfTwoRows(const float *upper, const float *lower,
                                             __mmask16 there) {
        const auto eight = [&](const float *from, int64_t k) __attribute__((always_inline)) {
            return _mm256_maskz_loadu_ps(static_cast<__mmask8>(there >> k), from + k);
        };
        first = _mm512_insertf32x8(_mm512_castps256_ps512(eight(upper, 0)), eight(lower, 0), 1);
        second = _mm512_insertf32x8(_mm512_castps256_ps512(eight(upper, 8)), eight(lower, 8), 1);
    }
};

// What `all_of` makes of eight sums of each of sixteen rows, two vectors' neighbours at a time.
inline __attribute__((always_inline)) __m512 all_of_sixteen(const __m512 *sums) {
    const auto add = [](__m512 a, __m512 b) __attribute__((always_inline)) {
        return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
    };
    const __m512 low = add(add(sums[0], sums[1]), add(sums[2], sums[3]));
    const __m512 high = add(add(sums[4], sums[5]), add(sums[6], sums[7]));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                         _mm512_shuffle_f32x4(low, high, 0xDD));
}

// Sixteen rows as `some_dots` has four, sums and all.
template <typename Number, int MANY>
inline __attribute__((always_inline)) void short_dots(const Number *rows, const float *x,
                                                      int64_t columns, float *y, int64_t apart) {
    __m512 sums[MANY][8];
    for (auto &several : sums)
        for (auto &sum : several) sum = _mm512_setzero_ps();
    const auto add = [&](int64_t k, __mmask16 there) __attribute__((always_inline)) {
        __m512 first[MANY], second[MANY];
        for (int one = 0; one < MANY; one++) {
            const float *from = x + one * columns + k;
            first[one] = _mm512_broadcast_f32x8(
                _mm256_maskz_loadu_ps(static_cast<__mmask8>(there), from));
            second[one] = _mm512_broadcast_f32x8(
                _mm256_maskz_loadu_ps(static_cast<__mmask8>(there >> 8), from + 8));
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const int64_t row = i % 4 + i / 4 * 8;
            const OfTwoRows both(rows + row * columns + k, rows + (row + 4) * columns + k, there);
            for (int one = 0; one < MANY; one++) {
                sums[one][i] = _mm512_fmadd_ps(both.first, first[one], sums[one][i]);
                sums[one][i] = _mm512_fmadd_ps(both.second, second[one], sums[one][i]);
            }
        }
    };
    int64_t k = 0;
    for (; k + 16 <= columns; k += 16) add(k, 0xFFFF);
    if (k < columns) add(k, static_cast<__mmask16>((1u << (columns - k)) - 1));
    for (int one = 0; one < MANY; one++)
        _mm512_storeu_ps(y + one * apart, all_of_sixteen(sums[one]));
}
#endif

// Products of rows with activations [several, columns]; those of an activation lie `apart`.
template <typename Number>
void dots(const void *numbers, int64_t count, const float *x, int64_t several, int64_t columns,
          float *y, int64_t apart) {
    const Number *rows = static_cast<const Number *>(numbers);
    int64_t row = 0;
#ifdef HAS_AVX512
    // Of longer rows, sixteen share the places of the first cache.
    const int64_t together = columns * sizeof(Number) <= 2048 ? count / 16 * 16 : 0;
    for (; row < together; row += 16) {
        int64_t one = 0;
        for (; one + 2 <= several; one += 2)
            short_dots<Number, 2>(rows + row * columns, x + one * columns, columns,
                                  y + one * apart + row, apart);
        if (one < several)
            short_dots<Number, 1>(rows + row * columns, x + one * columns, columns,
                                  y + one * apart + row, apart);
    }
#endif
    for (; row < count; row += 4) {
        const int64_t four = std::min<int64_t>(4, count - row);
        int64_t one = 0;
        for (; one + 2 <= several; one += 2)
            some_dots<Number, 2>(rows + row * columns, four, x + one * columns, columns,
                                 y + one * apart + row, apart);
        if (one < several)
            some_dots<Number, 1>(rows + row * columns, four, x + one * columns, columns,
                                 y + one * apart + row, apart);
    }
}

// Eight numbers of 16 bits as the upper halves of eight floats, in fewer turns than by widening.
inline __attribute__((always_inline)) EightFloats upper_halves_at(const uint16_t *from) {
#ifdef HAS_AVX2
    typedef long long Pair __attribute__((vector_size(16)));
    typedef char Bytes __attribute__((vector_size(32)));
    constexpr char NO = -128;
    constexpr Bytes PLACES = {NO, NO, 0, 1, NO, NO, 2,  3,  NO, NO, 4,  5,  NO, NO, 6,  7,
                              NO, NO, 8, 9, NO, NO, 10, 11, NO, NO, 12, 13, NO, NO, 14, 15};
    Pair found;
    __builtin_memcpy(&found, from, 16);
    return (EightFloats)__builtin_ia32_pshufb256((Bytes)__builtin_ia32_vbroadcastsi256(found),
                                                 PLACES);
#else
    return floats_at(from);
#endif
}

// One activation with the values in bfloat16 that a mask marks; moves behind those it took.
float masked_dot(const uint8_t *mask, const float *x, int64_t columns, const uint16_t *&left,
                 const uint16_t *end) {
    const uint16_t *values = left;
    EightFloats sums[2] = {};
    int64_t k = 0;
    const auto add = [&](int64_t at, EightFloats &sum) __attribute__((always_inline)) {
        const uint8_t byte = mask[at / 8];
        const int64_t count = __builtin_popcount(byte);
        Eight kept, marked;
        __builtin_memcpy(&kept, SPREAD.first[count], 32);
        __builtin_memcpy(&marked, SPREAD.marked[byte], 32);
        const Eight taken = (Eight)__builtin_shuffle(floats_at(x + at), marked);
        sum += (EightFloats)(taken & kept) * upper_halves_at(values);
        values += count;
    };
    // Eight values are read at a time, however few are kept.
    const int64_t safe = std::min(columns, end - values - 8) / 16 * 16;
    for (; k < safe; k += 16) add(k, sums[0]), add(k + 8, sums[1]);
    for (; k + 8 <= columns && values + 8 <= end; k += 8) add(k, sums[0]);
    float rest = 0;
    for (; k < columns; k++)
        if (mask[k / 8] >> k % 8 & 1) {
            const uint32_t bits = static_cast<uint32_t>(*values++) << 16;
            float value;
            __builtin_memcpy(&value, &bits, 4);
            rest += x[k] * value;
        }
    left = values;
    return all_of(sums[0] + sums[1]) + rest;
}

// The four of two fours of an activation that a byte of positions names; the others are not used.
inline __attribute__((always_inline)) EightFloats of_two_fours(const float *x, Eight positions) {
#ifdef HAS_AVX2
    return __builtin_ia32_vpermilvarps256(floats_at(x), (EightSigned)positions);
#else
    EightFloats found = {};
    for (int i = 0; i < 8; i++) found[i] = x[i / 4 * 4 + (positions[i] & 3)];
    return found;
#endif
}

// One activation with a row of which two of every four are held, in bfloat16.
float fours_dot(const uint8_t *positions, const float *x, int64_t columns,
                const uint16_t *values) {
    typedef uint32_t Pairs __attribute__((vector_size(16)));
    EightFloats sums = {};
    int64_t k = 0;
    for (; k + 16 <= columns; k += 16) {
        const Eight both = Eight{} + (positions[k / 8] | positions[k / 8 + 1] << 8);
        const EightFloats first = of_two_fours(x + k, both >> Eight{0, 2, 0, 0, 4, 6, 0, 0});
        const EightFloats second =
            of_two_fours(x + k + 8, both >> Eight{8, 10, 0, 0, 12, 14, 0, 0});
        const EightFloats taken =
            __builtin_shuffle(first, second, Eight{0, 1, 8, 9, 4, 5, 12, 13});
        Pairs pairs;
        __builtin_memcpy(&pairs, values + k / 2, 16);
        pairs = __builtin_shuffle(pairs, Pairs{0, 2, 1, 3});
        sums += taken * floats_at(reinterpret_cast<const uint16_t *>(&pairs));
    }
    float rest = 0;
    for (int64_t value = k / 2; value < columns / 2; value++) {
        const int64_t place = positions[value / 4] >> value % 4 * 2 & 3;
        const uint32_t bits = static_cast<uint32_t>(values[value]) << 16;
        float number;
        __builtin_memcpy(&number, &bits, 4);
        rest += x[value / 2 * 4 + place] * number;
    }
    return all_of(sums) + rest;
}

template <int LENGTH>
struct VectorOf;

template <>
struct VectorOf<2> {
    typedef float Numbers __attribute__((vector_size(8)));
};

template <>
struct VectorOf<4> {
    typedef float Numbers __attribute__((vector_size(16)));
};

template <>
struct VectorOf<8> {
    typedef EightFloats Numbers;
};

// Vectors of a table times neighbouring numbers of an activation.
template <int LENGTH>
float vectors_dot(const uint32_t *codes, const float *table, const float *x, int64_t count) {
    typedef typename VectorOf<LENGTH>::Numbers Vector;
    Vector sums[4] = {};
    const auto add = [&](int64_t i, Vector &sum) __attribute__((always_inline)) {
        Vector found, part;
        __builtin_memcpy(&found, table + LENGTH * codes[i], sizeof(Vector));
        __builtin_memcpy(&part, x + LENGTH * i, sizeof(Vector));
        sum += found * part;
    };
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int64_t j = 0; j < 4; j++) add(i + j, sums[j]);
    for (; i < count; i++) add(i, sums[0]);
    const Vector all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float sum = 0;
    for (int j = 0; j < LENGTH; j++) sum += all[j];
    return sum;
}
