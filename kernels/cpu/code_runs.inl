// Sums of codes with activations; included by code_runs_vnni.cpp alone.
//
// A register holds four codes of sixteen rows. Every activation's four bytes meet it there, and a
// sum is scaled once for all columns that share a scale of the activation and a group.

constexpr int NEAR_WORDS = 4;  // of a tile, one after another

// Adds four products of codes with signed bytes each. GCC copies sums about where it is asked for
// this by its intrinsic.
inline __attribute__((always_inline)) void add_products(__m512i &sum, __m512i codes,
                                                        __m512i bytes) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(bytes));
}

// Zero, each time anew: a copy would be one more sum to keep.
inline __attribute__((always_inline)) __m512i zero() {
    __m512i found;
    __asm__ volatile("vpxord %0, %0, %0" : "=v"(found));
    return found;
}

// A few words of a tile with activations, by upper bytes and, where those are there, lower ones.
template <bool BYTES, int MANY>
inline __attribute__((always_inline)) void add_words(const uint8_t *tile, const uint8_t *bytes,
                                                     __m512i (&upper)[MANY][2],
                                                     __m512i (&lower)[MANY][2]) {
    constexpr int WIDE = BYTES ? 4 : 8;
#pragma GCC unroll 4
    for (int word = 0; word < NEAR_WORDS; word++) {
        const __m512i codes[2] = {_mm512_load_si512(tile + TILE_WORD * word),
                                  _mm512_load_si512(tile + TILE_WORD * word + 64)};
#pragma GCC unroll 8
        for (int one = 0; one < MANY; one++) {
            int32_t high, low;
            __builtin_memcpy(&high, bytes + WIDE * (MANY * word + one), 4);
            if (!BYTES) __builtin_memcpy(&low, bytes + WIDE * (MANY * word + one) + 4, 4);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                add_products(upper[one][half], codes[half], _mm512_set1_epi32(high));
                if (!BYTES) add_products(lower[one][half], codes[half], _mm512_set1_epi32(low));
            }
        }
    }
}

// Scales sums of some pieces and adds them up. Upper bytes alone are worth 256 by their scales.
template <bool BYTES, bool HALVED, int MANY>
inline __attribute__((always_inline)) void finish_piece(const Meeting &at, int piece, int together,
                                                        const __m512i (&upper)[MANY][2],
                                                        const __m512i (&lower)[MANY][2]) {
    __m512 halves[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int more = piece; HALVED && more < piece + together; more++)
        for (int half = 0; half < 2; half++)
            halves[half] =
                _mm512_add_ps(halves[half], _mm512_loadu_ps(at.halves + 32 * more + 16 * half));
    const float *shared = at.shared + piece * MANY, *own = at.own[piece];
    float *sums = at.sums;
#pragma GCC unroll 8
    for (int one = 0; one < MANY; one++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++, sums += 16) {
            __m512i whole = upper[one][half];
            if (!BYTES) whole = _mm512_add_epi32(_mm512_slli_epi32(whole, 8), lower[one][half]);
            __m512 exact = _mm512_cvtepi32_ps(whole);
            if (HALVED) exact = _mm512_add_ps(exact, halves[half]);
            exact = _mm512_mul_ps(exact, _mm512_set1_ps(shared[one]));
            _mm512_storeu_ps(sums, _mm512_fmadd_ps(exact, _mm512_loadu_ps(own + 16 * half),
                                                   _mm512_loadu_ps(sums)));
        }
}

template <bool BYTES, int TOGETHER, int MANY>
void add_run(const Meeting &at) {
    constexpr int STEP = (BYTES ? 4 : 8) * MANY * NEAR_WORDS;  // bytes of activations
    const uint8_t *tile = at.tile, *bytes = at.bytes, *ahead = at.ahead;
    for (int piece = 0; piece < 4; piece += TOGETHER) {
        __m512i upper[MANY][2], lower[MANY][2];
#pragma GCC unroll 8
        for (int one = 0; one < MANY; one++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                upper[one][half] = lower[one][half] = zero();
#pragma GCC unroll 1
        for (int word = 0; word < 8 * TOGETHER; word += NEAR_WORDS) {
            for (int64_t line = 0; line < at.ahead_lines; line++, ahead += 64)
                _mm_prefetch(reinterpret_cast<const char *>(ahead), _MM_HINT_T1);
            for (int line = 0; line < STEP; line += 64)  // the next part's follow these
                _mm_prefetch(reinterpret_cast<const char *>(bytes + 8 * STEP + line), _MM_HINT_T0);
            add_words<BYTES, MANY>(tile, bytes, upper, lower);
            tile += TILE_WORD * NEAR_WORDS, bytes += STEP;
        }
        const auto finish = [&](auto halved) __attribute__((always_inline)) {
            finish_piece<BYTES, decltype(halved)::value>(at, piece, TOGETHER, upper, lower);
        };
        if (BYTES && at.halves)
            finish(std::true_type());
        else
            finish(std::false_type());
    }
}

#define OF(bytes, pieces, many) add_run<bytes, pieces, many>
#define FEW_OF(bytes, pieces) \
    OF(bytes, pieces, 1), OF(bytes, pieces, 2), OF(bytes, pieces, 3), OF(bytes, pieces, 4)
#define MANY_OF(pieces)                                                                \
    FEW_OF(true, pieces), OF(true, pieces, 5), OF(true, pieces, 6), OF(true, pieces, 7), \
        OF(true, pieces, 8)

const AddRun OF_PAIRS[3][8] = {{FEW_OF(false, 1)}, {FEW_OF(false, 2)}, {FEW_OF(false, 4)}};
const AddRun OF_BYTES[3][8] = {{MANY_OF(1)}, {MANY_OF(2)}, {MANY_OF(4)}};

#undef MANY_OF
#undef FEW_OF
#undef OF
