// Codes of planes, eight at a time; compiled wherever it is included, for the processor meant there.

typedef uint32_t Eight __attribute__((vector_size(32)));

// The compiler's own conversion takes several turns.
inline __attribute__((always_inline)) Eight eight_at(const uint8_t *from) {
#ifdef HAS_AVX2
    typedef long long Whole __attribute__((vector_size(16)));
    typedef char Bytes __attribute__((vector_size(16)));
    Whole found = {};
    __builtin_memcpy(&found, from, 8);
    return (Eight)__builtin_ia32_pmovzxbd256((Bytes)found);
#else
    typedef uint8_t Bytes __attribute__((vector_size(8)));
    Bytes found;
    __builtin_memcpy(&found, from, 8);
    return __builtin_convertvector(found, Eight);
#endif
}

// Eight codes of one plane, from a column that eight divides.
template <int WIDTH>
inline __attribute__((always_inline)) Eight eight_of(const uint8_t *line, int64_t column) {
    const uint8_t *at = line + column * WIDTH / 8;
    if (WIDTH == 8) return eight_at(at);
    uint32_t word = 0;
    __builtin_memcpy(&word, at, WIDTH & 7);
    const Eight turns = {0,         WIDTH,     2 * WIDTH, 3 * WIDTH,
                         4 * WIDTH, 5 * WIDTH, 6 * WIDTH, 7 * WIDTH};
    return ((Eight{} + word) >> turns) & ((1u << (WIDTH & 7)) - 1);
}

// Eight codes of all planes that PLANES names, a bit for each of 1, 2, 4 and 8 bits.
template <int PLANES>
inline __attribute__((always_inline)) Eight eight_codes(const uint8_t *const *lines,
                                                        int64_t column) {
    Eight codes = {};
    uint32_t shift = 0;
    if (PLANES & 1) codes |= eight_of<1>(lines[0], column), shift += 1;
    if (PLANES & 2) codes |= eight_of<2>(lines[1], column) << shift, shift += 2;
    if (PLANES & 4) codes |= eight_of<4>(lines[2], column) << shift, shift += 4;
    if (PLANES & 8) codes |= eight_of<8>(lines[3], column) << shift;
    return codes;
}
