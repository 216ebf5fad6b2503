// Codes with several activations, by AVX-512 with VNNI; part of its loops.
//
// A block of 32 rows is unpacked once and turned, so that a register holds four codes of sixteen
// rows. Every activation meets it there, and a sum is scaled once for all columns that share a scale
// of the activation and a group, not for every few codes of a lane.

constexpr int64_t TILED = 4;  // activations from which this is quicker
constexpr int AT_A_TIME = 4;  // activations whose sums stay in registers

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

// A block of some rows, [words of a row's block, codes of a byte, 32 rows, 4].
template <int PLANES>
void unpack_tile(const CodeRows &rows, int64_t row, int64_t several, int64_t block, uint8_t *tile) {
    typedef Held<PLANES> Of;
    // What is fewer registers is turned: planes as they lie, or codes.
    constexpr bool PLANES_FIRST = 1 + (Of::LOWER & 1) + (Of::LOWER >> 1) < Of::EACH;
    const bool whole = (block + 1) * 64 <= rows.bytes[Of::WIDEST];
    for (int64_t half = 0; half < 2 && 16 * half < several; half++) {
        __m512i held[PLANES_FIRST ? 3 : Of::EACH][16];
        for (int64_t i = 0; i < 16; i++) {
            const int64_t from = row + std::min(16 * half + i, several - 1);
            const Of one(rows, from, block, whole);
            // what a row has next comes too late if it is asked for among those of all others
            _mm_prefetch(reinterpret_cast<const char *>(rows.lines[Of::WIDEST] +
                                                        from * rows.bytes[Of::WIDEST]) +
                             64 * (block + 3),
                         _MM_HINT_T0);
            if constexpr (PLANES_FIRST) {
                held[0][i] = one.widest;
                if (Of::LOWER & 1) held[1][i] = one.ones;
                if (Of::LOWER & 2) held[2][i] = one.twos;
            } else {
#pragma GCC unroll 8
                for (int j = 0; j < Of::EACH; j++) held[j][i] = one.codes(j);
            }
        }
        if constexpr (PLANES_FIRST) {
            turn(held[0]);
            if (Of::LOWER & 1) turn(held[1]);
            if (Of::LOWER & 2) turn(held[2]);
        } else {
#pragma GCC unroll 8
            for (int j = 0; j < Of::EACH; j++) turn(held[j]);
        }
        for (int64_t i = 0; i < 16; i++) {
            Of word;
            if (PLANES_FIRST) word.widest = held[0][i], word.ones = held[1][i];
            if constexpr (PLANES_FIRST) word.twos = held[2][i];
#pragma GCC unroll 8
            for (int j = 0; j < Of::EACH; j++)
                _mm512_store_si512(tile + ((i * Of::EACH + j) * 2 + half) * 64,
                                   PLANES_FIRST ? word.codes(j) : held[j][i]);
        }
    }
}

// Where a panel of activations stands: a block of the view, and of each activation.
struct Meeting {
    const PlaneView &view;
    int64_t block, one;     // the block, and the first activation
    const int32_t *uneven;  // [activations, 32 columns]: what signed codes of 8 bits leave out
    int64_t uneven_apart;
    const int32_t *halves;  // [32 columns of the block, 32]: codes times half an upper byte; or null
    const float *scales;    // of sixteen rows and sixteen more, [groups, 32]
    float *sums;            // [activations, 32]
};

// Adds the products of a tile with some activations to their sums; of a steady block, which has one
// scale and one group, one sum is scaled, else one of each 32 columns.
template <int PLANES, bool BYTES, bool STEADY, int MANY>
void add_codes(const uint8_t *tile, const Meeting &at) {
    constexpr int EACH = Held<PLANES>::EACH, WORDS = 8 / EACH;  // words of 32 columns
    constexpr int TOGETHER = STEADY ? 2 * EACH : 1;
    const PlaneView &view = at.view;
    const auto *bytes = reinterpret_cast<const uint8_t *>(view.words + at.one * view.words_apart) +
                        128 * EACH * at.block;
    const int64_t apart = 2 * view.words_apart;
    __m512 sums[MANY][2];
#pragma GCC unroll 4
    for (int one = 0; one < MANY; one++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
            sums[one][half] = _mm512_loadu_ps(at.sums + 32 * (at.one + one) + 16 * half);
    for (int64_t part = 0; part < 2 * EACH; part += TOGETHER) {
        __m512i upper[MANY][2], lower[MANY][2], halves[2] = {};
#pragma GCC unroll 4
        for (int one = 0; one < MANY; one++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                upper[one][half] = lower[one][half] = _mm512_setzero_si512();
                if (EACH == 1 && !BYTES)
                    lower[one][half] = _mm512_set1_epi32(
                        at.uneven[(at.one + one) * at.uneven_apart + 2 * at.block + part]);
            }
        for (int more = 0; more < TOGETHER; more++, tile += 8 * 128, bytes += 4 * WORDS) {
            if (BYTES && at.halves)
                for (int half = 0; half < 2; half++)
                    halves[half] = _mm512_add_epi32(
                        halves[half],
                        _mm512_loadu_si512(at.halves + 32 * (part + more) + 16 * half));
#pragma GCC unroll 8
            for (int word = 0; word < 8; word++) {
                const __m512i codes[2] = {_mm512_load_si512(tile + 128 * word),
                                          _mm512_load_si512(tile + 128 * word + 64)};
                const __m512i turn_sign = _mm512_set1_epi8(EACH == 1 ? -128 : 0);
                const __m512i with_sign[2] = {_mm512_xor_si512(codes[0], turn_sign),
                                              _mm512_xor_si512(codes[1], turn_sign)};
                const uint8_t *x = bytes + 128 * (word % EACH) + 4 * (word / EACH);
#pragma GCC unroll 4
                for (int one = 0; one < MANY; one++) {
                    int32_t high, low;
                    __builtin_memcpy(&high, x + one * apart, 4);
                    __builtin_memcpy(&low, x + one * apart + 64, 4);
#pragma GCC unroll 2
                    for (int half = 0; half < 2; half++) {
                        // two sums by turns, for the next waits for that before
                        auto &sum = BYTES && word % 2 ? lower[one][half] : upper[one][half];
                        sum = _mm512_dpbusd_epi32(sum, codes[half], _mm512_set1_epi32(high));
                        if (!BYTES)
                            lower[one][half] = _mm512_dpbusd_epi32(
                                lower[one][half], _mm512_set1_epi32(low), with_sign[half]);
                    }
                }
            }
        }
        const int64_t lane = 16 * at.block + WORDS * part;
        const float *own = at.scales + 32 * (view.first[at.block] + view.places[lane]);
#pragma GCC unroll 4
        for (int one = 0; one < MANY; one++) {
            const __m512 shared =
                _mm512_set1_ps(view.lanes[(at.one + one) * view.lanes_apart + lane]);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                __m512i high = upper[one][half], low = lower[one][half];
                if (BYTES) high = _mm512_add_epi32(high, low), low = halves[half];
                const __m512i exact = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
                sums[one][half] =
                    _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(exact), shared),
                                    _mm512_loadu_ps(own + 16 * half), sums[one][half]);
            }
        }
    }
#pragma GCC unroll 4
    for (int one = 0; one < MANY; one++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
            _mm512_storeu_ps(at.sums + 32 * (at.one + one) + 16 * half, sums[one][half]);
}

// 128 times the sum of the lower bytes of each 32 columns, [activations, 32 columns]: codes of 8
// bits are multiplied by them less 128, as the operation asks for a sign.
inline std::vector<int32_t> uneven_of(const PlaneView &view, int64_t several, int64_t blocks) {
    std::vector<int32_t> found(several * 2 * blocks);
    int32_t *to = found.data();
    for (int64_t one = 0; one < several; one++)
        for (int64_t part = 0; part < 2 * blocks; part++) {
            const auto *low = reinterpret_cast<const uint8_t *>(view.words + one * view.words_apart) +
                              part / 2 * 128 + 64 + part % 2 * 32;
            int32_t sum = 0;
            for (int i = 0; i < 32; i++) sum += low[i];
            *to++ = 128 * sum;
        }
    return found;
}

// 128 times the sums of the codes of each 32 columns of a tile, [32 columns, 32].
inline void halves_of(const uint8_t *tile, int64_t parts, int32_t *found) {
    for (int64_t part = 0; part < parts; part++)
        for (int half = 0; half < 2; half++) {
            __m512i sum = _mm512_setzero_si512();
            for (int word = 0; word < 8; word++)
                sum = _mm512_dpbusd_epi32(
                    sum, _mm512_load_si512(tile + (8 * part + word) * 128 + 64 * half),
                    _mm512_set1_epi8(1));
            _mm512_storeu_si512(found + 32 * part + 16 * half, _mm512_slli_epi32(sum, 7));
        }
}

// Adds the products of rows of codes with all activations, times their factor, to y [rows,
// activations]; groups and steps part where 32 columns end.
template <int PLANES, bool BYTES, bool STEADY>
void code_tiles(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
                float *y) {
    typedef Held<PLANES> Of;
    typedef void (*Add)(const uint8_t *, const Meeting &);
    static const Add adds[] = {
        add_codes<PLANES, BYTES, STEADY, 1>, add_codes<PLANES, BYTES, STEADY, 2>,
        add_codes<PLANES, BYTES, STEADY, 3>, add_codes<PLANES, BYTES, STEADY, 4>};
    alignas(64) uint8_t tile[16 * Of::EACH * 128];
    int32_t halves[2 * Of::EACH * 32];
    const bool halved = BYTES && view.halves;
    const int64_t blocks = (rows.bytes[Of::WIDEST] + 63) / 64;
    const int64_t parts = (several + AT_A_TIME - 1) / AT_A_TIME;
    const std::vector<int32_t> uneven =
        Of::EACH == 1 && !BYTES ? uneven_of(view, several, blocks) : std::vector<int32_t>();
    std::vector<float> scales(32 * rows.groups), sums;
    for (int64_t row = 0; row < count; row += TILE_OF_CODES) {
        const int64_t here = std::min(TILE_OF_CODES, count - row);
        for (int64_t i = 0; i < here; i++)
            for (int64_t group = 0; group < rows.groups; group++)
                scales[32 * group + i] = rows.scales[(row + i) * rows.groups + group];
        sums.assign(32 * several, 0);
        for (int64_t block = 0; block < blocks; block++) {
            unpack_tile<PLANES>(rows, row, here, block, tile);
            if (halved) halves_of(tile, 2 * Of::EACH, halves);
            for (int64_t part = 0; part < parts; part++) {
                const int64_t first = several * part / parts;
                const int64_t end = several * (part + 1) / parts;
                adds[end - first - 1](tile, {view, block, first, uneven.data(), 2 * blocks,
                                             halved ? halves : nullptr, scales.data(),
                                             sums.data()});
            }
        }
        for (int64_t i = 0; i < here; i++)
            for (int64_t one = 0; one < several; one++)
                y[(row + i) * several + one] += rows.factor * sums[32 * one + i];
    }
}
