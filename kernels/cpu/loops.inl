// Loops over numbers, compiled once for each kind of processor; included by loops.cpp alone.

#include "eights.inl"

typedef int32_t EightSigned __attribute__((vector_size(32)));
typedef float EightFloats __attribute__((vector_size(32)));

inline __attribute__((always_inline)) EightFloats floats_at(const float *from) {
    EightFloats found;
    __builtin_memcpy(&found, from, 32);
    return found;
}

// Eight numbers in 32 bits.
inline __attribute__((always_inline)) Eight eight_at(const uint16_t *from) {
#ifdef HAS_AVX2
    typedef short Halves __attribute__((vector_size(16)));
    Halves found;
    __builtin_memcpy(&found, from, 16);
    return (Eight)__builtin_ia32_pmovzxwd256(found);
#else
    return Eight{from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]};
#endif
}

inline __attribute__((always_inline)) EightFloats floats_at(const uint16_t *from) {
    return (EightFloats)(eight_at(from) << 16);
}

template <int PLANES>
void unpack(const uint8_t *const *lines, int64_t column, int64_t count, uint32_t *out) {
    for (int64_t done = 0; done < count; done += 8) {
        const Eight codes = eight_codes<PLANES>(lines, column + done);
        __builtin_memcpy(out + done, &codes, 32);
    }
}

template <int PLANES>
void scaled(const uint8_t *const *lines, int64_t column, int64_t count, float middle, float scale,
            float offset, float *out) {
    for (int64_t done = 0; done < count; done += 8) {
        const EightSigned codes = (EightSigned)eight_codes<PLANES>(lines, column + done);
        const EightFloats found =
            (__builtin_convertvector(codes, EightFloats) - middle) * scale + offset;
        __builtin_memcpy(out + done, &found, 32);
    }
}

// `values` can be read for sixteen entries beyond those that are kept.
const float *spread(const uint8_t *mask, const float *values, int64_t bytes, float *out) {
    for (int64_t byte = 0; byte < bytes; byte++) {
        EightFloats next;
        Eight places, kept;
        __builtin_memcpy(&next, values, 32);
        __builtin_memcpy(&places, SPREAD.place[mask[byte]], 32);
        __builtin_memcpy(&kept, SPREAD.kept[mask[byte]], 32);
        const Eight found = (Eight)__builtin_shuffle(next, places) & kept;
        __builtin_memcpy(out + 8 * byte, &found, 32);
        values += __builtin_popcount(mask[byte]);
    }
    return values;
}

// Two of every four entries; `values` can be read for four entries beyond those of the bytes.
void spread_fours(const uint8_t *positions, const float *values, int64_t bytes, float *out) {
    for (int64_t byte = 0; byte < bytes; byte++) {
        EightFloats next;
        Eight places, kept;
        __builtin_memcpy(&next, values + 4 * byte, 32);
        __builtin_memcpy(&places, FOURS.place[positions[byte]], 32);
        __builtin_memcpy(&kept, FOURS.kept[positions[byte]], 32);
        const Eight found = (Eight)__builtin_shuffle(next, places) & kept;
        __builtin_memcpy(out + 8 * byte, &found, 32);
    }
}

int64_t ones(const uint8_t *bytes, int64_t count) {
    int64_t found = 0, done = 0;
    for (; done + 8 <= count; done += 8) {
        uint64_t word;
        __builtin_memcpy(&word, bytes + done, 8);
        found += __builtin_popcountll(word);
    }
    for (; done < count; done++) found += __builtin_popcount(bytes[done]);
    return found;
}

void widen(const uint16_t *from, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const EightFloats found = floats_at(from + i);
        __builtin_memcpy(out + i, &found, 32);
    }
    for (; i < count; i++) {
        const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
        __builtin_memcpy(out + i, &bits, 4);
    }
}

// Codes of one and of two bits, eight at a time, as codes of four bits: bits move apart by halves.
template <int PLANES>
void spread_to_four(const uint8_t *ones, const uint8_t *twos, int64_t eights, uint8_t *out) {
    for (int64_t i = 0; i < eights; i++) {
        uint32_t found = 0;
        if (PLANES & 2) {
            uint16_t pairs;
            __builtin_memcpy(&pairs, twos + 2 * i, 2);
            found = (pairs | static_cast<uint32_t>(pairs) << 8) & 0x00FF00FF;
            found = (found | found << 4) & 0x0F0F0F0F;
            found = (found | found << 2) & 0x33333333;
        }
        if (PLANES & 1) {
            uint32_t bits = ones[i];
            bits = (bits | bits << 12) & 0x000F000F;
            bits = (bits | bits << 6) & 0x03030303;
            found = found << 1 | ((bits | bits << 3) & 0x11111111);
        }
        __builtin_memcpy(out + 4 * i, &found, 4);
    }
}

// Multiplies a line by an activation and returns the sum.
float product_in_place(float *line, const float *x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < count; k++) {
        line[k] *= x[k];
        sum += line[k];
    }
    return sum;
}

// A table of up to 16 values stays in two registers; `table` can be read for 16.
void look_up(const uint32_t *codes, const float *table, int64_t size, int64_t count, float *out) {
    int64_t done = 0;
    if (size <= 16) {
        EightFloats low, high;
        __builtin_memcpy(&low, table, 32);
        __builtin_memcpy(&high, table + 8, 32);
        for (; done + 8 <= count; done += 8) {
            Eight places;
            __builtin_memcpy(&places, codes + done, 32);
            const EightFloats found = __builtin_shuffle(low, high, places);
            __builtin_memcpy(out + done, &found, 32);
        }
    }
    for (; done < count; done++) out[done] = table[codes[done]];
}

void scale_by(float *values, float scale, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] *= scale;
}

void combine(float *out, const float *line, float factor, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] += factor * line[i];
}

template <int GROUPS>
void add_few_groups(const float *worth, const float *sums, int64_t rows, int64_t apart, float *y) {
    for (int64_t row = 0; row < rows; row++) {
        float sum = 0;
        for (int64_t group = 0; group < GROUPS; group++)
            sum += worth[row * GROUPS + group] * sums[group * apart + row];
        y[row] += sum;
    }
}

void add_groups(const float *worth, const float *sums, int64_t rows, int64_t groups, int64_t apart,
                float *y) {
    if (groups == 1) {
        add_few_groups<1>(worth, sums, rows, apart, y);
    } else if (groups == 2) {
        add_few_groups<2>(worth, sums, rows, apart, y);
    } else if (groups == 4) {
        add_few_groups<4>(worth, sums, rows, apart, y);
    } else {
        for (int64_t row = 0; row < rows; row++) {
            float sum = 0;
            for (int64_t group = 0; group < groups; group++)
                sum += worth[row * groups + group] * sums[group * apart + row];
            y[row] += sum;
        }
    }
}

void join(const uint8_t *rest, const uint8_t *exponents, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = static_cast<uint32_t>(rest[i] & 0x80) << 24 |
                              static_cast<uint32_t>(exponents[i]) << 23 |
                              static_cast<uint32_t>(rest[i] & 0x7F) << 16;
        __builtin_memcpy(out + i, &bits, 4);
    }
}

#include "code_blocks.inl"
#include "numbers.inl"
#include "group_dots.inl"
#include "fours.inl"
#include "huffman.inl"
#include "kept_groups.inl"
#include "row_tables.inl"
#include "signs.inl"
#include "vector_columns.inl"
#include "fixed.inl"
#include "tiles.inl"
#ifdef HAS_AVX512
#include "looks.inl"
#endif

#define FOR_ALL_PLANES(name)                                                                  \
    {                                                                                         \
        nullptr, name<1>, name<2>, name<3>, name<4>, name<5>, name<6>, name<7>, name<8>,      \
            name<9>, name<10>, name<11>, name<12>, name<13>, name<14>, name<15>               \
    }

const Loops LOOPS = {FOR_ALL_PLANES(unpack),
                     FOR_ALL_PLANES(scaled),
                     FOR_ALL_PLANES(write_block),
                     FOR_ALL_PLANES(write_turned),
                     spread,
                     spread_fours,
                     ones,
                     sign_sums,
#ifdef HAS_AVX512
                     sign_groups,
#else
                     nullptr,
#endif
                     add_groups,
                     widen,
                     {nullptr, spread_to_four<1>, spread_to_four<2>, spread_to_four<3>},
                     product_in_place,
                     look_up,
                     scale_by,
                     combine,
                     join,
                     read_lanes,
                     make_code_table,
                     dots<float>,
                     dots<uint16_t>,
                     group_dots,
                     masked_dot,
                     fours_dot,
                     round_to_fixed,
                     round_to_codes,
                     round_table,
                     {plane_dots<1>, plane_dots<2>, plane_dots<4>, plane_dots<8>},
                     table_dots,
                     {add_columns<1>, add_columns<2>, add_columns<4>, add_columns<8>},
                     {nullptr, vectors_dot<2>, vectors_dot<4>, vectors_dot<8>},
                     deal_kept,
                     kept_dots,
                     write_kept,
#ifdef HAS_AVX512
                     table_rows,
                     fours_rows,
#else
                     nullptr,
                     nullptr,
#endif
                     place,
                     tile_dots,
                     finish_tile,
#ifdef HAS_AVX512
                     {look_at<float>, look_at<uint16_t>},
                     256,
#else
                     {},
                     0,
#endif
                     8,
                     {},
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     {}};

#undef FOR_ALL_PLANES
