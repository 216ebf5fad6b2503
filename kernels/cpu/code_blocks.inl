// Codes of some columns of some rows, each worth (code - middle) * factor + offset of its group; a part
// of loops.inl.

// Eight codes of a plane of a row, from a column that eight divides; those behind its end are zero.
template <typename Word>
inline __attribute__((always_inline)) Word word_of(const CodeBlock &held, int plane, int64_t row,
                                                   int64_t column) {
    const int64_t from = column / 8 * static_cast<int64_t>(sizeof(Word));
    const uint8_t *bytes = held.lines[plane] + row * held.bytes[plane] + from;
    const int64_t left = held.bytes[plane] - from;
    Word word = 0;
    if (left >= static_cast<int64_t>(sizeof(Word)))
        __builtin_memcpy(&word, bytes, sizeof(Word));
    else
        for (int64_t i = 0; i < left; i++) word |= static_cast<Word>(bytes[i]) << 8 * i;
    return word;
}

// The codes of all planes.
template <int PLANES>
inline __attribute__((always_inline)) Eight eight_of_row(const CodeBlock &held, int64_t row,
                                                         int64_t column) {
    uint8_t words[4][8];
    const auto take = [&](int plane, auto word) __attribute__((always_inline)) {
        word = word_of<decltype(word)>(held, plane, row, column);
        __builtin_memcpy(words[plane], &word, sizeof(word));
    };
    if (PLANES & 1) take(0, uint8_t{});
    if (PLANES & 2) take(1, uint16_t{});
    if (PLANES & 4) take(2, uint32_t{});
    if (PLANES & 8) take(3, uint64_t{});
    const uint8_t *lines[4] = {words[0], words[1], words[2], words[3]};
    return eight_codes<PLANES>(lines, 0);
}

inline __attribute__((always_inline)) void store_some(EightFloats found, int64_t first, int64_t end,
                                                      float *out) {
    if (first == 0 && end == 8)
        __builtin_memcpy(out, &found, 32);
    else
        for (int64_t i = first; i < end; i++) out[i] = found[i];
}

// Rows [rows, count]; eights never meet two groups.
template <int PLANES>
void write_block(const CodeBlock &held, float *out) {
    const int64_t start = held.column / 8 * 8, end = held.column + held.count;
    const int64_t eights = held.group_size / 8, first = start / 8;
    for (int64_t row = 0; row < held.rows; row++, out += held.count) {
        const float *factors = held.factors + row * held.groups;
        const float *offsets = held.offsets + row * held.groups;
        int64_t left = eights - first % eights;
        for (int64_t k = start; k < end; k += 8) {
            if (!left--) left = eights - 1, factors++, offsets++;
            const EightSigned codes = (EightSigned)eight_of_row<PLANES>(held, row, k);
            const EightFloats found =
                (__builtin_convertvector(codes, EightFloats) - held.middle) * *factors + *offsets;
            store_some(found, std::max<int64_t>(0, held.column - k), std::min<int64_t>(8, end - k),
                       out + k - held.column);
        }
    }
}

// The same codes as bytes.
template <int PLANES>
inline __attribute__((always_inline)) uint64_t bytes_of_row(const CodeBlock &held, int64_t row,
                                                            int64_t column) {
#ifdef HAS_AVX512
    uint64_t found = 0;
    int shift = 0;
    const auto add = [&](int plane, auto word) __attribute__((always_inline)) {
        const int width = 1 << plane;
        found |= _pdep_u64(word_of<decltype(word)>(held, plane, row, column),
                           (0x0101010101010101u * ((1u << width) - 1)) << shift);
        shift += width;
    };
    if (PLANES & 1) add(0, uint8_t{});
    if (PLANES & 2) add(1, uint16_t{});
    if (PLANES & 4) add(2, uint32_t{});
    if (PLANES & 8) add(3, uint64_t{});
    return found;
#else
    typedef uint8_t Bytes __attribute__((vector_size(8)));
    return (uint64_t)__builtin_convertvector(eight_of_row<PLANES>(held, row, column), Bytes);
#endif
}

typedef uint8_t SixtyFour __attribute__((vector_size(64)));
typedef uint64_t EightWords __attribute__((vector_size(64)));

// Eight bytes of each of eight rows, so that those of a column come together.
inline __attribute__((always_inline)) SixtyFour turned_bytes(EightWords rows) {
    const SixtyFour places = {0,  8,  16, 24, 32, 40, 48, 56, 1,  9,  17, 25, 33, 41, 49, 57,
                              2,  10, 18, 26, 34, 42, 50, 58, 3,  11, 19, 27, 35, 43, 51, 59,
                              4,  12, 20, 28, 36, 44, 52, 60, 5,  13, 21, 29, 37, 45, 53, 61,
                              6,  14, 22, 30, 38, 46, 54, 62, 7,  15, 23, 31, 39, 47, 55, 63};
    return __builtin_shuffle((SixtyFour)rows, places);
}

// Eight columns of eight rows turned, which lie `apart`.
inline __attribute__((always_inline)) void store_turned(const SixtyFour &codes, float middle,
                                                        EightFloats factors, EightFloats offsets,
                                                        float *out, int64_t apart) {
#ifdef HAS_AVX512
    const __m512 factor = _mm512_broadcast_f32x8((__m256)factors);
    const __m512 offset = _mm512_broadcast_f32x8((__m256)offsets);
    const auto store = [&](__m128i two) __attribute__((always_inline)) {
        const __m512 found = _mm512_fmadd_ps(
            _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(two)), _mm512_set1_ps(middle)),
            factor, offset);
        _mm256_storeu_ps(out, _mm512_castps512_ps256(found));
        _mm256_storeu_ps(out + apart, _mm512_extractf32x8_ps(found, 1));
        out += 2 * apart;
    };
    store(_mm512_castsi512_si128((__m512i)codes));
    store(_mm512_extracti32x4_epi32((__m512i)codes, 1));
    store(_mm512_extracti32x4_epi32((__m512i)codes, 2));
    store(_mm512_extracti32x4_epi32((__m512i)codes, 3));
#else
    for (int64_t i = 0; i < 8; i++) {
        const EightSigned one =
            (EightSigned)eight_at(reinterpret_cast<const uint8_t *>(&codes) + 8 * i);
        const EightFloats found =
            (__builtin_convertvector(one, EightFloats) - middle) * factors + offsets;
        __builtin_memcpy(out + i * apart, &found, 32);
    }
#endif
}

// The same turned, columns [count, rows], with factors and offsets [groups, rows], of which eight
// behind the last can be read.
template <int PLANES>
void write_turned(const CodeBlock &held, float *out) {
    const int64_t start = held.column / 8 * 8, end = held.column + held.count, rows = held.rows;
    const int64_t eights = held.group_size / 8;
    int64_t group = 0, left = eights - start / 8 % eights;
    for (int64_t k = start; k < end; k += 8) {
        if (!left--) left = eights - 1, group++;
        const bool whole = k >= held.column && k + 8 <= end;
        for (int64_t row = 0; row < rows; row += 8) {
            const int64_t several = std::min<int64_t>(8, rows - row);
            EightWords words = {};
            if (several == 8)
                words = EightWords{
                    bytes_of_row<PLANES>(held, row, k),     bytes_of_row<PLANES>(held, row + 1, k),
                    bytes_of_row<PLANES>(held, row + 2, k), bytes_of_row<PLANES>(held, row + 3, k),
                    bytes_of_row<PLANES>(held, row + 4, k), bytes_of_row<PLANES>(held, row + 5, k),
                    bytes_of_row<PLANES>(held, row + 6, k), bytes_of_row<PLANES>(held, row + 7, k)};
            else
                for (int64_t i = 0; i < several; i++)
                    words[i] = bytes_of_row<PLANES>(held, row + i, k);
            const SixtyFour codes = turned_bytes(words);
            const EightFloats factors = floats_at(held.factors + group * rows + row);
            const EightFloats offsets = floats_at(held.offsets + group * rows + row);
            float *to = out + (k - held.column) * rows + row;
            if (whole && several == 8) {
                store_turned(codes, held.middle, factors, offsets, to, rows);
                continue;
            }
            alignas(64) float room[64];
            store_turned(codes, held.middle, factors, offsets, room, 8);
            for (int64_t i = std::max<int64_t>(0, held.column - k); i < 8 && k + i < end; i++)
                for (int64_t j = 0; j < several; j++) to[i * rows + j] = room[8 * i + j];
        }
    }
}
