// Integers of 16 bits and products of codes with them; a part of loops.inl.

// Activations to integers of 16 bits, 128 at a time. What is not finite stays so through its scale.
void round_to_fixed(const float *x, int64_t columns, const Rounding &, int64_t, int16_t *numbers,
                    float *scales) {
    constexpr int64_t EACH = Fixed::SHARED, PIECES = Fixed::NEAR / EACH;
    constexpr float FAR = 8;
    for (int64_t start = 0; start < columns; start += Fixed::NEAR) {
        const int64_t several = std::min(Fixed::NEAR, columns - start);
        float room[Fixed::NEAR], largest[PIECES], finite[PIECES], most = 0, least = 0;
        const float *part = x + start;
        if (several < Fixed::NEAR) {
            std::copy_n(part, several, room);
            std::fill(room + several, room + Fixed::NEAR, 0.0f);
            part = room;
        }
        for (int64_t piece = 0; piece < PIECES; piece++) {
            float most_here = 0, finite_here = 0;
#pragma omp simd reduction(max : most_here) reduction(+ : finite_here)
            for (int64_t i = EACH * piece; i < EACH * (piece + 1); i++) {
                const float size = std::fabs(part[i]);
                most_here = size > most_here ? size : most_here;
                finite_here += part[i] * 0;
            }
            largest[piece] = most_here, finite[piece] = finite_here;
            most = std::max(most, most_here);
            if (most_here > 0) least = least > 0 ? std::min(least, most_here) : most_here;
        }
        const bool near = finite[0] + finite[1] + finite[2] + finite[3] == 0 && most <= FAR * least;
        for (int64_t piece = 0; piece < PIECES; piece++) {
            const float top = near ? most : largest[piece];
            scales[start / EACH + piece] = top / Fixed::LARGEST + finite[piece];
            if (!(finite[piece] == 0 && top > 1e-30f)) continue;
            const float factor = Fixed::LARGEST / top;
            for (int64_t i = EACH * piece; i < EACH * (piece + 1); i++)
                numbers[start + i] = static_cast<int16_t>(
                    static_cast<int32_t>(part[i] * factor + (part[i] < 0 ? -0.5f : 0.5f)));
        }
    }
}

// Numbers at the nearest steps, a tie at the even one or between two half ones, times a unit.
template <bool ODD>
inline __attribute__((always_inline)) void codes_of(const float *x, int64_t count, float step,
                                                    float top, float unit, int16_t *numbers) {
    constexpr float WHOLE = 12582912;  // what is added to it loses what is less than one
    const float lowest = ODD ? -top : -top - 1;
    for (int64_t i = 0; i < count; i++) {
        float value = x[i] / step;
        value = value < lowest ? lowest : value;
        value = value > top ? top : value;
        const float nearest = value + WHOLE - WHOLE;
        const float code = ODD ? nearest - (nearest > value ? 0.5f : -0.5f) : nearest;
        numbers[i] = static_cast<int16_t>(static_cast<int32_t>(code * unit));
    }
}

// Activations to codes of few bits, block by block as torch would, each times the largest power of
// two that two bytes with signs hold; a scale is the step over that. What is not finite stays so through it.
void round_to_codes(const float *x, int64_t columns, const Rounding &rounding, int64_t shared,
                    int16_t *numbers, float *scales) {
    constexpr float TINY = 1e-12f;
    for (int64_t start = 0; start < columns; start += rounding.block) {
        const int64_t several = std::min(rounding.block, columns - start);
        const float *part = x + start;
        float largest = 0, finite = 0;
#pragma omp simd reduction(max : largest) reduction(+ : finite)
        for (int64_t i = 0; i < several; i++) {
            const float size = std::fabs(part[i]);
            largest = size > largest ? size : largest;
            finite += part[i] * 0;
        }
        const int64_t bits = start < rounding.wide ? 8 : rounding.bits;
        const float top = static_cast<float>((1 << (bits - 1)) - 1) + (rounding.odd ? 0.5f : 0);
        const float step = std::max(rounding.reach * largest / top, TINY) + finite;
        const int64_t room = bits > 8 && !(rounding.odd && bits == Fixed::WHOLE - 1);
        const auto unit = static_cast<float>(1 << (Fixed::WHOLE - room - bits));
        std::fill_n(scales + start / shared, (several + shared - 1) / shared, step / unit);
        if (!(finite == 0)) continue;
        (rounding.odd ? codes_of<true> : codes_of<false>)(part, several, step, top, unit,
                                                           numbers + start);
    }
}

// Values of a table to integers of 16 bits: off by less than 2e-5 of the largest; their scale.
float round_table(const float *values, Table &table) {
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < 16; i++) {
        const float size = std::fabs(values[i]);
        largest = size > largest ? size : largest;
    }
    const float factor = largest > 0 ? 32767 / largest : 0;
    int32_t whole[16];
#pragma omp simd
    for (int64_t i = 0; i < 16; i++) {
        const float value = values[i] * factor;
        whole[i] = static_cast<int32_t>(value + (value < 0 ? -0.5f : 0.5f));
    }
    for (int64_t i = 0; i < 16; i++) {
        table.low[i] = static_cast<uint8_t>(whole[i]);
        table.high[i] = static_cast<uint8_t>(whole[i] >> 8);
    }
    return largest / 32767;
}

typedef uint16_t Words __attribute__((vector_size(32)));

// Sums of pairs of products of signed numbers of 16 bits.
inline __attribute__((always_inline)) EightSigned pairs_of_products(Words a, Words b) {
#ifdef HAS_AVX2
    typedef short Shorts __attribute__((vector_size(32)));
    return (EightSigned)__builtin_ia32_pmaddwd256((Shorts)a, (Shorts)b);
#else
    const EightSigned first = (EightSigned)a, second = (EightSigned)b;
    return ((first << 16) >> 16) * ((second << 16) >> 16) + (first >> 16) * (second >> 16);
#endif
}

// What the sums of a block are multiplied by, but for the activations' own scales.
inline __attribute__((always_inline)) EightFloats scales_of(const PlaneView &view, int64_t block,
                                                            const float *scales) {
    EightFloats several;
    EightSigned places;
    __builtin_memcpy(&several, scales + view.first[block], 32);
    __builtin_memcpy(&places, view.places + 8 * block, 32);
    return __builtin_shuffle(several, places);
}

// A block of a row; what lies behind the row's end is not read.
inline __attribute__((always_inline)) Words block_of(const uint8_t *line, int64_t bytes) {
    Words found = {};
    if (bytes >= 32)
        __builtin_memcpy(&found, line, 32);
    else
        for (int64_t i = 0; i < bytes; i++) reinterpret_cast<uint8_t *>(&found)[i] = line[i];
    return found;
}

template <int WIDTH, int MANY>
inline __attribute__((always_inline)) void several_plane_dots(const uint8_t *line, int64_t bytes,
                                                              const PlaneView &view, int64_t first,
                                                              const float *scales, float factor,
                                                              float *y, int64_t apart) {
    constexpr int EACH = 16 / WIDTH;
    EightFloats sums[MANY] = {};
    for (int64_t block = 0; 32 * block < bytes; block++) {
        const Words held = block_of(line + 32 * block, bytes - 32 * block);
        EightSigned exact[MANY] = {};
#pragma GCC unroll 16
        for (int j = 0; j < EACH; j++) {
            const Words codes = (held >> (WIDTH * j)) & static_cast<uint16_t>((1 << WIDTH) - 1);
#pragma GCC unroll 4
            for (int i = 0; i < MANY; i++) {
                Words x;
                __builtin_memcpy(&x, view.words + (first + i) * view.words_apart +
                                         16 * (EACH * block + j), 32);
                exact[i] += pairs_of_products(codes, x);
            }
        }
        const EightFloats own = scales_of(view, block, scales);
#pragma GCC unroll 4
        for (int i = 0; i < MANY; i++) {
            EightFloats lanes;
            __builtin_memcpy(&lanes, view.lanes + (first + i) * view.lanes_apart + 8 * block, 32);
            sums[i] += __builtin_convertvector(exact[i], EightFloats) * (own * lanes);
        }
    }
    for (int i = 0; i < MANY; i++) y[(first + i) * apart] += factor * all_of(sums[i]);
}

// Four rows with one activation; each sum in the same order as that of a row alone.
template <int WIDTH>
inline __attribute__((always_inline)) void four_plane_dots(const Plane &plane,
                                                           const PlaneView &view, int64_t one,
                                                           float *y) {
    constexpr int EACH = 16 / WIDTH;
    EightFloats sums[4] = {};
    for (int64_t block = 0; 32 * block < plane.bytes; block++) {
        const int16_t *words = view.words + one * view.words_apart + 16 * EACH * block;
        EightFloats lanes;
        __builtin_memcpy(&lanes, view.lanes + one * view.lanes_apart + 8 * block, 32);
#pragma GCC unroll 4
        for (int row = 0; row < 4; row++) {
            const Words held = block_of(plane.lines + row * plane.bytes + 32 * block,
                                        plane.bytes - 32 * block);
            EightSigned exact = {};
#pragma GCC unroll 16
            for (int j = 0; j < EACH; j++) {
                Words x;
                __builtin_memcpy(&x, words + 16 * j, 32);
                exact += pairs_of_products(
                    (held >> (WIDTH * j)) & static_cast<uint16_t>((1 << WIDTH) - 1), x);
            }
            sums[row] += __builtin_convertvector(exact, EightFloats) *
                         (scales_of(view, block, plane.scales + row * plane.groups) * lanes);
        }
    }
    for (int row = 0; row < 4; row++) y[row] += plane.factor * all_of(sums[row]);
}

// Adds the products of rows of one plane with all activations, times its factor, to y [activations,
// apart].
template <int WIDTH>
void plane_dots(const Plane &plane, int64_t rows, const PlaneView &view, int64_t count, float *y,
                int64_t apart) {
    int64_t first = 0;
    for (; first + 4 <= count; first += 4)
        for (int64_t row = 0; row < rows; row++)
            several_plane_dots<WIDTH, 4>(plane.lines + row * plane.bytes, plane.bytes, view, first,
                                         plane.scales + row * plane.groups, plane.factor, y + row,
                                         apart);
    for (; first < count; first++) {
        int64_t row = 0;
        for (; row + 4 <= rows; row += 4)
            four_plane_dots<WIDTH>({plane.lines + row * plane.bytes, plane.bytes,
                                    plane.scales + row * plane.groups, plane.groups, plane.factor},
                                   view, first, y + row + first * apart);
        for (; row < rows; row++)
            several_plane_dots<WIDTH, 1>(plane.lines + row * plane.bytes, plane.bytes, view, first,
                                         plane.scales + row * plane.groups, plane.factor, y + row,
                                         apart);
    }
}

// Codes of four bits, two a byte, as numbers of 16 bits: of low codes, then of high ones, each in
// the order of bytes that `Fixed` deals activations in.
inline __attribute__((always_inline)) void look_up_words(Words held, const Table &table,
                                                         Words found[4]) {
#ifdef HAS_AVX2
    typedef char Bytes __attribute__((vector_size(32)));
    Bytes low, high;
    for (int half = 0; half < 2; half++) {
        __builtin_memcpy(reinterpret_cast<char *>(&low) + 16 * half, table.low, 16);
        __builtin_memcpy(reinterpret_cast<char *>(&high) + 16 * half, table.high, 16);
    }
    for (int which = 0; which < 2; which++) {
        const Bytes codes = (Bytes)((which ? held >> 4 : held) & static_cast<uint16_t>(0x0F0F));
        const Bytes a = __builtin_ia32_pshufb256(low, codes);
        const Bytes b = __builtin_ia32_pshufb256(high, codes);
        found[2 * which] = (Words)__builtin_ia32_punpcklbw256(a, b);
        found[2 * which + 1] = (Words)__builtin_ia32_punpckhbw256(a, b);
    }
#else
    const uint8_t *bytes = reinterpret_cast<const uint8_t *>(&held);
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 16; i++) {
            const int code = bytes[i / 8 * 16 + j % 2 * 8 + i % 8] >> j / 2 * 4 & 15;
            found[j][i] = static_cast<uint16_t>(table.low[code] | table.high[code] << 8);
        }
#endif
}

template <int MANY>
inline __attribute__((always_inline)) void several_table_dots(const uint8_t *line, int64_t bytes,
                                                              const Table &table,
                                                              const PlaneView &view, int64_t first,
                                                              const float *scales, float *y,
                                                              int64_t apart) {
    EightFloats sums[MANY] = {};
    for (int64_t block = 0; 32 * block < bytes; block++) {
        Words values[4];
        look_up_words(block_of(line + 32 * block, bytes - 32 * block), table, values);
        const EightFloats own = scales_of(view, block, scales);
        for (int i = 0; i < MANY; i++) {
            EightFloats lanes, found = {};
            for (int j = 0; j < 4; j++) {
                Words x;
                __builtin_memcpy(&x, view.words + (first + i) * view.words_apart +
                                         64 * block + 16 * j, 32);
                // one more sum of such products would leave 32 bits
                found += __builtin_convertvector(pairs_of_products(values[j], x), EightFloats);
            }
            __builtin_memcpy(&lanes, view.lanes + (first + i) * view.lanes_apart + 8 * block, 32);
            sums[i] += found * (own * lanes);
        }
    }
    for (int i = 0; i < MANY; i++) y[(first + i) * apart] += all_of(sums[i]);
}

// Adds the products of a row of codes into a table with all activations to y [activations, apart].
void table_dots(const uint8_t *line, int64_t bytes, const Table &table, const PlaneView &view,
                int64_t count, const float *scales, float *y, int64_t apart) {
    int64_t first = 0;
    for (; first + 4 <= count; first += 4)
        several_table_dots<4>(line, bytes, table, view, first, scales, y, apart);
    for (; first < count; first++)
        several_table_dots<1>(line, bytes, table, view, first, scales, y, apart);
}
