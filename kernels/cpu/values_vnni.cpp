// Codes of up to eight bits as numbers by AVX-512 with VBMI, 64 at a time: by factors and offsets, or
// looked up in tables of up to 256; and two of every four. Apart, to be compiled meanwhile.
#include "lookups.h"

#ifdef SEVERAL_KINDS
#include "vnni_target.h"
namespace {

// Eight codes of WIDTH bits in each word of 64, a byte each.
template <int WIDTH>
inline __attribute__((always_inline)) __m512i bytes_of_codes(const uint8_t *from, int64_t left) {
    constexpr int BYTES = 8 * WIDTH;
    const __mmask64 there = left >= BYTES ? ~0ull >> (64 - BYTES) : (1ull << left) - 1;
    const __m512i held = _mm512_maskz_loadu_epi8(there, from);
    if (WIDTH == 8) return held;
    const __m512i words = WIDTH == 4   ? _mm512_cvtepu32_epi64(_mm512_castsi512_si256(held))
                          : WIDTH == 2 ? _mm512_cvtepu16_epi64(_mm512_castsi512_si128(held))
                                       : _mm512_cvtepu8_epi64(_mm512_castsi512_si128(held));
    const int64_t turns = 0x0706050403020100 * (WIDTH & 7);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(turns), words),
                            _mm512_set1_epi8((1 << (WIDTH & 7)) - 1));
}

// 64 codes of all planes, from a column that eight divides; those behind the row's end are zero.
template <int PLANES>
inline __attribute__((always_inline)) __m512i bytes_of_planes(const CodeBlock &held, int64_t row,
                                                              int64_t column) {
    __m512i codes = _mm512_setzero_si512();
    int shift = 0;
    const auto add = [&](int plane, auto width) __attribute__((always_inline)) {
        constexpr int WIDTH = decltype(width)::value;
        const int64_t from = column / 8 * WIDTH;
        const __m512i found =
            bytes_of_codes<WIDTH>(held.lines[plane] + row * held.bytes[plane] + from,
                                  std::max<int64_t>(0, held.bytes[plane] - from));
        codes = _mm512_or_si512(codes, _mm512_slli_epi16(found, shift));
        shift += WIDTH;
    };
    if (PLANES & 1) add(0, std::integral_constant<int, 1>());
    if (PLANES & 2) add(1, std::integral_constant<int, 2>());
    if (PLANES & 4) add(2, std::integral_constant<int, 4>());
    if (PLANES & 8) add(3, std::integral_constant<int, 8>());
    return codes;
}

// What belongs to the groups of eight columns and of the next eight.
template <bool EIGHTS>
inline __attribute__((always_inline)) __m512 of_groups(const float *values, int64_t own,
                                                       int64_t other) {
    if (!EIGHTS) return _mm512_set1_ps(values[own]);
    return _mm512_insertf32x8(_mm512_set1_ps(values[own]), _mm256_set1_ps(values[other]), 1);
}

// Rows [rows, count] of a block, of which `values` makes four times sixteen numbers of 64 codes, and
// `finish` what those are worth by what belongs to their groups.
template <int PLANES, bool EIGHTS, typename Values, typename Finish>
inline __attribute__((always_inline)) void write_in_groups(const CodeBlock &held, float *out,
                                                           Values values, Finish finish) {
    constexpr int64_t EACH = EIGHTS ? 8 : 16;
    const int64_t parts = held.groups < 2 ? INT64_MAX : held.group_size / EACH;
    const int64_t begun = held.groups < 2 ? 0 : held.column / EACH % parts;
    for (int64_t row = 0; row < held.rows; row++, out += held.count) {
        int64_t group = row * held.groups, left = parts - begun;
        const auto next = [&]() __attribute__((always_inline)) {
            if (!left--) left = parts - 1, group++;
            return group;
        };
        for (int64_t done = 0; done < held.count; done += 64) {
            __m512 found[4];
            values(bytes_of_planes<PLANES>(held, row, held.column + done), found);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const int64_t first = done + 16 * i, several = held.count - first;
                if (several <= 0) break;
                const int64_t own = next(), other = EIGHTS && several > 8 ? next() : own;
                const __m512 worth = finish(found[i], [&](const float *of) {
                    return of_groups<EIGHTS>(of, own, other);
                });
                if (several >= 16)
                    _mm512_storeu_ps(out + first, worth);
                else
                    _mm512_mask_storeu_ps(out + first, (1u << several) - 1, worth);
            }
        }
    }
}

template <int PLANES, typename Values, typename Finish>
inline __attribute__((always_inline)) void write_sixteens(const CodeBlock &held, float *out,
                                                          Values values, Finish finish) {
    if (held.groups < 2 || (held.group_size % 16 == 0 && held.column % 16 == 0))
        write_in_groups<PLANES, false>(held, out, values, finish);
    else
        write_in_groups<PLANES, true>(held, out, values, finish);
}

template <int PLANES>
void write_block(const CodeBlock &held, float *out) {
    if (held.column % 8) {
        loops_of_avx512()->write_block[PLANES](held, out);
        return;
    }
    const __m512 middle = _mm512_set1_ps(held.middle);
    const auto numbers = [](__m512i codes, __m512 found[4]) __attribute__((always_inline)) {
        const auto wide = [](__m128i some) __attribute__((always_inline)) {
            return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(some));
        };
        found[0] = wide(_mm512_castsi512_si128(codes));
        found[1] = wide(_mm512_extracti32x4_epi32(codes, 1));
        found[2] = wide(_mm512_extracti32x4_epi32(codes, 2));
        found[3] = wide(_mm512_extracti32x4_epi32(codes, 3));
    };
    write_sixteens<PLANES>(held, out, numbers, [&](__m512 number, auto of_group)
                                                   __attribute__((always_inline)) {
        return _mm512_fmadd_ps(_mm512_sub_ps(number, middle), of_group(held.factors),
                               of_group(held.offsets));
    });
}

// A table of up to 256 numbers by their bytes, the lowest first, as registers look them up.
struct Bytes {
    alignas(64) uint8_t of[4][256];
    bool halves;  // whether the lower two are zero everywhere

    explicit Bytes(int64_t size) { std::memset(of, 0, sizeof(of)), left_ = size; }

    void take(const float *table) {
        __m512i lower = _mm512_setzero_si512();
        for (int64_t i = 0; i < left_; i += 16) {
            const __m512i some = _mm512_maskz_loadu_epi32(some_of(i), table + i);
            lower = _mm512_or_si512(lower, some);
            store(2, i, some), store(3, i, some), store(0, i, some), store(1, i, some);
        }
        halves = !_mm512_test_epi32_mask(lower, _mm512_set1_epi32(0xFFFF));
    }

    // Of numbers in bfloat16.
    void take(const uint16_t *table) {
        for (int64_t i = 0; i < left_; i += 16) {
            const __m256i some = _mm256_maskz_loadu_epi16(some_of(i), table + i);
            const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(some), 16);
            store(2, i, wide), store(3, i, wide);
        }
        halves = true;
    }

  private:
    __mmask16 some_of(int64_t i) const {
        return left_ - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (left_ - i)) - 1);
    }

    void store(int byte, int64_t i, __m512i some) {
        _mm_store_si128(reinterpret_cast<__m128i *>(of[byte] + i),
                        _mm512_cvtepi32_epi8(_mm512_srli_epi32(some, 8 * byte)));
    }

    int64_t left_;
};

// One byte of each of 64 entries of a table of 64, 128 or 256.
template <int REGISTERS>
inline __attribute__((always_inline)) __m512i looked_up(const uint8_t *table, __m512i codes) {
    const auto at = [&](int i) __attribute__((always_inline)) {
        return _mm512_load_si512(table + 64 * i);
    };
    if (REGISTERS == 1) return _mm512_permutexvar_epi8(codes, at(0));
    const __m512i low = _mm512_permutex2var_epi8(at(0), codes, at(1));
    if (REGISTERS == 2) return low;
    const __m512i high = _mm512_permutex2var_epi8(at(2), codes, at(3));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
}

// 64 entries, four times sixteen in order: codes lie so that bytes beside bytes do.
template <int REGISTERS, bool HALVES>
inline __attribute__((always_inline)) void entries_of(const Bytes &table, __m512i codes,
                                                      __m512 found[4]) {
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    codes = _mm512_permutexvar_epi32(order, codes);
    const __m512i third = looked_up<REGISTERS>(table.of[2], codes);
    const __m512i fourth = looked_up<REGISTERS>(table.of[3], codes);
    __m512i low[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (!HALVES) {
        const __m512i first = looked_up<REGISTERS>(table.of[0], codes);
        const __m512i second = looked_up<REGISTERS>(table.of[1], codes);
        low[0] = _mm512_unpacklo_epi8(first, second), low[1] = _mm512_unpackhi_epi8(first, second);
    }
    const __m512i high[2] = {_mm512_unpacklo_epi8(third, fourth),
                             _mm512_unpackhi_epi8(third, fourth)};
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        found[2 * i] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low[i], high[i]));
        found[2 * i + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low[i], high[i]));
    }
}

template <int PLANES, bool HALVES>
inline __attribute__((always_inline)) void write_entries(const CodeBlock &held, const Bytes &table,
                                                         float *out) {
    constexpr int REGISTERS = PLANES & 8 ? 4 : PLANES == 7 ? 2 : 1;
    const auto entries = [&](__m512i codes, __m512 found[4]) __attribute__((always_inline)) {
        entries_of<REGISTERS, HALVES>(table, codes, found);
    };
    if (held.factors)
        write_sixteens<PLANES>(held, out, entries, [&](__m512 number, auto of_group)
                                                       __attribute__((always_inline)) {
            return _mm512_mul_ps(number, of_group(held.factors));
        });
    else
        write_sixteens<PLANES>(held, out, entries, [](__m512 number, auto)
                                                       __attribute__((always_inline)) {
            return number;
        });
}

template <int PLANES>
void write_looked_up(const CodeBlock &held, const Entries &table, float *out) {
    Bytes bytes(table.size);
    if (table.all) {
        bytes.take(table.all);
        if (bytes.halves)
            write_entries<PLANES, true>(held, bytes, out);
        else
            write_entries<PLANES, false>(held, bytes, out);
        return;
    }
    CodeBlock one = held;
    one.rows = 1;
    for (int64_t row = 0; row < held.rows; row++, out += held.count) {
        bytes.take(table.rows + row * table.size);
        write_entries<PLANES, true>(one, bytes, out);
        if (one.factors) one.factors += held.groups;
        for (int plane = 0; plane < 4; plane++) one.lines[plane] += held.bytes[plane];
    }
}

// As loops.inl has it, two bytes of a mask at a time; sixteen values beyond the kept can be read.
const float *spread(const uint8_t *mask, const float *values, int64_t bytes, float *out) {
    int64_t byte = 0;
    for (; byte + 2 <= bytes; byte += 2) {
        uint16_t marked;
        __builtin_memcpy(&marked, mask + byte, 2);
        _mm512_storeu_ps(out + 8 * byte, _mm512_maskz_expand_ps(marked, _mm512_loadu_ps(values)));
        values += __builtin_popcount(marked);
    }
    if (byte < bytes) {
        _mm256_storeu_ps(out + 8 * byte,
                         _mm256_maskz_expand_ps(mask[byte], _mm256_loadu_ps(values)));
        values += __builtin_popcount(mask[byte]);
    }
    return values;
}

// As loops.inl has it, two bytes of positions at a time.
void spread_fours(const uint8_t *positions, const float *values, int64_t bytes, float *out) {
    int64_t byte = 0;
    for (; byte + 2 <= bytes; byte += 2) {
        const auto marked = static_cast<__mmask16>(FOURS.marked[positions[byte]] |
                                                   FOURS.marked[positions[byte + 1]] << 8);
        const __m256 next = _mm256_loadu_ps(values + 4 * byte);
        _mm512_storeu_ps(out + 8 * byte,
                         _mm512_maskz_expand_ps(marked, _mm512_castps256_ps512(next)));
    }
    if (byte < bytes)
        _mm256_storeu_ps(out + 8 * byte, _mm256_maskz_expand_ps(FOURS.marked[positions[byte]],
                                                                _mm256_loadu_ps(values + 4 * byte)));
}

}  // namespace
#pragma GCC pop_options

void take_values(Loops &found) {
#define TAKE(planes)                                  \
    found.write_block[planes] = write_block<planes>; \
    found.write_looked_up[planes] = write_looked_up<planes>
    TAKE(1);
    TAKE(2);
    TAKE(3);
    TAKE(4);
    TAKE(5);
    TAKE(6);
    TAKE(7);
    TAKE(8);
#undef TAKE
    found.spread = spread;
    found.spread_fours = spread_fours;
}
#endif
