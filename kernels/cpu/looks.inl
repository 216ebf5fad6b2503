// Attention by AVX-512, two queries of a head at a time; a part of loops.inl.

#include "halves.inl"

// 32 channels of a state: of bfloat16 the even ones, then the odd ones; of float32 as they lie.
struct Channels {
    __m512 first, second;

    __attribute__((always_inline)) explicit Channels(const float *from)
        : first(_mm512_loadu_ps(from)), second(_mm512_loadu_ps(from + 16)) {}

    __attribute__((always_inline)) explicit Channels(const uint16_t *from) {
        const __m512i pairs = _mm512_loadu_si512(from);
        first = lower_halves(pairs), second = upper_halves(pairs);
    }
};

// Every second of 32 places, and those of two vectors' numbers by turns.
inline __attribute__((always_inline)) __m512i every_second(int first) {
    return _mm512_add_epi32(
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
        _mm512_set1_epi32(first));
}

inline __attribute__((always_inline)) __m512i by_turns(int first) {
    return _mm512_add_epi32(
        _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
        _mm512_set1_epi32(first));
}

// 32 numbers as `Channels` of such states has them, and back.
template <typename Number>
inline __attribute__((always_inline)) void deal_channels(const float *from, __m512 (&to)[2]) {
    const __m512 a = _mm512_loadu_ps(from), b = _mm512_loadu_ps(from + 16);
    to[0] = a, to[1] = b;
    if (sizeof(Number) == 4) return;
    to[0] = _mm512_permutex2var_ps(a, every_second(0), b);
    to[1] = _mm512_permutex2var_ps(a, every_second(1), b);
}

template <typename Number>
inline __attribute__((always_inline)) void add_channels(const __m512 (&found)[2], float kept,
                                                        float *to) {
    __m512 a = found[0], b = found[1];
    if (sizeof(Number) == 2) {
        a = _mm512_permutex2var_ps(found[0], by_turns(0), found[1]);
        b = _mm512_permutex2var_ps(found[0], by_turns(8), found[1]);
    }
    const __m512 old = _mm512_set1_ps(kept);
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_loadu_ps(to), old, a));
    _mm512_storeu_ps(to + 16, _mm512_fmadd_ps(_mm512_loadu_ps(to + 16), old, b));
}

// Each of eight vectors to two numbers, beside each other.
inline __attribute__((always_inline)) __m512 pairs_of_eight(const __m512 *sums) {
    const __m512i inner = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26,
                                            27);
    __m512 four[4], two[2];
    for (int i = 0; i < 4; i++)
        four[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, sums[i], sums[i + 4]),
                                _mm512_shuffle_f32x4(sums[i], sums[i + 4], 0x4E));
    for (int i = 0; i < 2; i++)
        two[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, four[i], four[i + 2]),
                               _mm512_permutex2var_ps(four[i], inner, four[i + 2]));
    return _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, two[0], two[1]),
                         _mm512_shuffle_ps(two[0], two[1], 0x4E));
}

constexpr int64_t SEEN = 32;  // tokens at a time

typedef __m512 Asked[Asking::WIDEST / 16];  // a query, dealt

// Scores of sixteen keys; behind the last token its key stands again.
template <typename Number, int MANY>
inline __attribute__((always_inline)) void sixteen_scores(const Asked *queries, const Number *keys,
                                                          int64_t left, int64_t size,
                                                          __m512 (&scores)[MANY]) {
    __m512 pairs[MANY][2];
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
        __m512 sums[MANY][8];
        for (auto &several : sums)
            for (auto &sum : several) sum = _mm512_setzero_ps();
        const Number *rows[8];
        for (int64_t i = 0; i < 8; i++) rows[i] = keys + std::min(2 * i + odd, left - 1) * size;
        for (int64_t at = 0; at < size; at += 32)
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                const Channels key(rows[i] + at);
                for (int one = 0; one < MANY; one++) {
                    const __m512 *asked = queries[one] + at / 16;
                    sums[one][i] = _mm512_fmadd_ps(key.first, asked[0], sums[one][i]);
                    sums[one][i] = _mm512_fmadd_ps(key.second, asked[1], sums[one][i]);
                }
            }
        for (int one = 0; one < MANY; one++) pairs[one][odd] = pairs_of_eight(sums[one]);
    }
    const __m512i other = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15,
                                            30);
    for (int one = 0; one < MANY; one++)
        scores[one] = _mm512_add_ps(
            _mm512_mask_blend_ps(0xAAAA, pairs[one][0], pairs[one][1]),
            _mm512_permutex2var_ps(pairs[one][0], other, pairs[one][1]));
}

// Values of some tokens by their shares, 32 channels of them; an even token and the one behind it
// are added apart.
template <typename Number, int MANY>
inline __attribute__((always_inline)) void add_values(const float (*shares)[SEEN],
                                                      const Number *values, int64_t count,
                                                      int64_t size, __m512 (&found)[MANY][2]) {
    __m512 odd[MANY][2];
    for (int one = 0; one < MANY; one++)
        found[one][0] = found[one][1] = odd[one][0] = odd[one][1] = _mm512_setzero_ps();
    const auto add = [&](int64_t token, __m512(&to)[MANY][2]) __attribute__((always_inline)) {
        const Channels value(values + token * size);
        for (int one = 0; one < MANY; one++) {
            const __m512 share = _mm512_set1_ps(shares[one][token]);
            to[one][0] = _mm512_fmadd_ps(value.first, share, to[one][0]);
            to[one][1] = _mm512_fmadd_ps(value.second, share, to[one][1]);
        }
    };
    int64_t token = 0;
    for (; token + 2 <= count; token += 2) add(token, found), add(token + 1, odd);
    if (token < count) add(token, found);
    for (int one = 0; one < MANY; one++)
        for (int half = 0; half < 2; half++)
            found[one][half] = _mm512_add_ps(found[one][half], odd[one][half]);
}

// What queries of one token find among up to 32 tokens, added to what they found.
template <typename Number, int MANY>
void look_at_some(Asking *askings, const Number *keys, const Number *values, int64_t count,
                  int64_t size, const uint8_t *seen) {
    Asked queries[MANY];
    for (int one = 0; one < MANY; one++)
        for (int64_t at = 0; at < size; at += 32) {
            __m512 dealt[2];
            deal_channels<Number>(askings[one].query + at, dealt);
            queries[one][at / 16] = dealt[0], queries[one][at / 16 + 1] = dealt[1];
        }
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    __m512 scores[SEEN / 16][MANY], tops[MANY];
    for (int one = 0; one < MANY; one++)
        scores[1][one] = hidden, tops[one] = _mm512_set1_ps(askings[one].top);
    __mmask16 lost[MANY] = {};
    for (int64_t first = 0, part = 0; first < count; first += 16, part++) {
        const int64_t left = count - first;
        __mmask16 there = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1u << left) - 1);
        sixteen_scores<Number, MANY>(queries, keys + first * size, left, size, scores[part]);
        if (seen) {
            const __m128i marks = _mm_maskz_loadu_epi8(there, seen + first);
            there = _mm_test_epi8_mask(marks, marks);
        }
        for (int one = 0; one < MANY; one++) {
            __m512 &found = scores[part][one];
            found = _mm512_mask_mov_ps(hidden, there, found);
            tops[one] = _mm512_max_ps(found, tops[one]);
            lost[one] |= _mm512_cmp_ps_mask(found, found, _CMP_UNORD_Q);
        }
    }
    alignas(64) float shares[MANY][SEEN];
    float kept[MANY];
    for (int one = 0; one < MANY; one++) {
        Asking &asking = askings[one];
        const float top = _mm512_reduce_max_ps(tops[one]);
        // one that sees nothing has no shares, but for what is no number
        const __m512 from = _mm512_set1_ps(top == -INFINITY && !lost[one] ? 0 : top);
        __m512 sum = _mm512_setzero_ps();
        for (int part = 0; part < SEEN / 16; part++) {
            const SixteenNumbers apart = (SixteenNumbers)_mm512_sub_ps(scores[part][one], from);
            const __m512 share = (__m512)exponential(apart);
            _mm512_store_ps(shares[one] + 16 * part, share);
            sum = _mm512_add_ps(sum, share);
        }
        kept[one] = asking.top == top ? 1.0f : std::exp(asking.top - top);
        asking.top = top;
        asking.sum = asking.sum * kept[one] + _mm512_reduce_add_ps(sum);
    }
    for (int64_t at = 0; at < size; at += 32) {
        __m512 found[MANY][2];
        add_values<Number, MANY>(shares, values + at, count, size, found);
        for (int one = 0; one < MANY; one++)
            add_channels<Number>(found[one], kept[one], askings[one].found + at);
    }
}

// Queries of one token at states [count, size] of their head; 32 divides the size.
template <typename Number>
void look_at(Asking *askings, int64_t queries, const void *keys, const void *values, int64_t count,
             int64_t size, const uint8_t *seen) {
    const auto *key = static_cast<const Number *>(keys);
    const auto *value = static_cast<const Number *>(values);
    for (int64_t first = 0; first < count; first += SEEN) {
        const int64_t several = std::min(SEEN, count - first);
        const uint8_t *marks = seen ? seen + first : nullptr;
        int64_t one = 0;
        for (; one + 2 <= queries; one += 2)
            look_at_some<Number, 2>(askings + one, key, value, several, size, marks);
        if (one < queries)
            look_at_some<Number, 1>(askings + one, key, value, several, size, marks);
        key += SEEN * size, value += SEEN * size;
    }
}
