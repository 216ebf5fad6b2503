// Kept groups of codes of four bits, each worth code * scale + shift; a part of loops.inl.

// Eight codes of four bits as what they are worth.
inline __attribute__((always_inline)) EightFloats eight_worth(const uint8_t *codes, float scale,
                                                              float shift) {
    const EightSigned found = (EightSigned)eight_of<4>(codes, 0);
    return __builtin_convertvector(found, EightFloats) * scale + shift;
}

#ifdef HAS_AVX512
// Sixteen codes as what they are worth, dealt: 0, 8, 1, 9 and so on.
inline __attribute__((always_inline)) __m512 sixteen_worth(const uint8_t *codes, float scale,
                                                           float shift) {
    int64_t held;
    __builtin_memcpy(&held, codes, 8);
    const __m512i turns =
        _mm512_set_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
    const __m512 numbers = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i found = _mm512_srlv_epi32(_mm512_set1_epi64(held), turns);
    return _mm512_fmadd_ps(_mm512_permutexvar_ps(found, numbers), _mm512_set1_ps(scale),
                           _mm512_set1_ps(shift));
}
#endif

// An activation as codes of groups come apart, zero behind its end.
void deal_kept(const float *x, int64_t columns, int64_t size, float *to) {
    const int64_t whole = (columns + size - 1) / size * size;
    std::copy_n(x, columns, to);
    std::fill(to + columns, to + whole, 0.0f);
#ifdef HAS_AVX512
    const __m512i places = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
    for (int64_t k = 0; size >= 16 && k < whole; k += 16)
        _mm512_storeu_ps(to + k, _mm512_permutexvar_ps(places, _mm512_loadu_ps(to + k)));
#endif
}

// Sums of the products of groups with an activation, side by side.
template <int SIZE>
struct GroupSums {
#ifdef HAS_AVX512
    __m512 sixteens;
#endif
    EightFloats eights;

    __attribute__((always_inline)) void add(const uint8_t *codes, const float *worth,
                                            const float *x) {
        int k = 0;
#ifdef HAS_AVX512
        for (; k + 16 <= SIZE; k += 16)
            sixteens = _mm512_fmadd_ps(sixteen_worth(codes + k / 2, worth[0], worth[1]),
                                       _mm512_loadu_ps(x + k), sixteens);
#endif
        for (; k < SIZE; k += 8)
            eights += eight_worth(codes + k / 2, worth[0], worth[1]) * floats_at(x + k);
    }

    __attribute__((always_inline)) float all() const {
#ifdef HAS_AVX512
        if (SIZE >= 16) return _mm512_reduce_add_ps(sixteens);
#endif
        return all_of(eights);
    }
};

// Of short rows the groups that are not kept are multiplied too, by nothing: which are cannot be
// foretold.
template <int SIZE>
void kept_dots_of(const KeptGroups &held, const float *x, float *y) {
    constexpr int64_t SHORT = 16;
    const int64_t bytes = (held.groups + 7) / 8;
    int64_t kept = 0;
    for (int64_t row = 0; row < held.rows; row++) {
        const uint8_t *line = held.mask + row * bytes;
        GroupSums<SIZE> sums = {};
        if (held.groups <= SHORT) {
            uint32_t mask = line[0] | (bytes > 1 ? line[1] << 8 : 0);
            for (int64_t group = 0; group < held.groups; group++, mask >>= 1) {
                const int64_t there = mask & 1;
                sums.add(held.codes + (kept & -there) * (SIZE / 2),
                         held.worth + 2 * ((kept + 1) & -there), x + group * SIZE);
                kept += there;
            }
        } else {
            for (int64_t byte = 0; byte < bytes; byte++)
                for (uint32_t mask = line[byte]; mask; mask &= mask - 1, kept++)
                    sums.add(held.codes + kept * (SIZE / 2), held.worth + 2 * (kept + 1),
                             x + (8 * byte + __builtin_ctz(mask)) * SIZE);
        }
        y[row] = sums.all();
    }
}

// The products of rows of whole groups with an activation, dealt; one group at least is kept.
void kept_dots(const KeptGroups &held, const float *x, float *y) {
    if (held.size == 8) kept_dots_of<8>(held, x, y);
    if (held.size == 16) kept_dots_of<16>(held, x, y);
    if (held.size == 32) kept_dots_of<32>(held, x, y);
}

// Rows of whole groups.
void write_kept(const KeptGroups &held, float *out) {
    const int64_t bytes = (held.groups + 7) / 8;
    int64_t kept = 0;
    std::fill_n(out, held.rows * held.groups * held.size, 0.0f);
    for (int64_t row = 0; row < held.rows; row++, out += held.groups * held.size)
        for (int64_t byte = 0; byte < bytes; byte++)
            for (uint32_t mask = held.mask[row * bytes + byte]; mask; mask &= mask - 1) {
                float *group = out + (8 * byte + __builtin_ctz(mask)) * held.size;
                const uint8_t *codes = held.codes + kept++ * held.size / 2;
                for (int64_t k = 0; k < held.size; k += 8) {
                    const EightFloats found = eight_worth(codes + k / 2, held.worth[2 * kept],
                                                          held.worth[2 * kept + 1]);
                    __builtin_memcpy(group + k, &found, 32);
                }
            }
}
