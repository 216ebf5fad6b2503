// What caches hold of states that leave their window: codes in ranges, and the largest channels.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "bfloat16.h"
#include "clones.h"
#include "decode.h"

namespace {

// Least and largest of each channel over tokens, or of each token over channels; no numbers where
// one of them is none, so that codes hide none.
CLONES void ranges(const float *states, int64_t count, int64_t channels, bool by_channel,
                   float *low, float *high) {
    if (by_channel) {
        std::copy_n(states, channels, low);
        std::copy_n(states, channels, high);
        for (int64_t token = 1; token < count; token++)
            for (int64_t i = 0; i < channels; i++) {
                const float one = states[token * channels + i];
                low[i] = one < low[i] || one != one ? one : low[i];
                high[i] = one > high[i] || one != one ? one : high[i];
            }
        return;
    }
    for (int64_t token = 0; token < count; token++) {
        const float *row = states + token * channels;
        float least = row[0], largest = row[0];
        int none = 0;
#pragma omp simd reduction(min : least) reduction(max : largest) reduction(| : none)
        for (int64_t i = 0; i < channels; i++) {
            least = row[i] < least ? row[i] : least;
            largest = row[i] > largest ? row[i] : largest;
            none |= row[i] != row[i];
        }
        low[token] = none ? NAN : least, high[token] = none ? NAN : largest;
    }
}

CLONES void round_row(const float *row, const float *scales, const float *offsets,
                      bool by_channel, float levels, int64_t channels, uint8_t *codes) {
    for (int64_t i = 0; i < channels; i++) {
        const int64_t which = by_channel ? i : 0;
        const float code = std::nearbyint((row[i] - offsets[which]) / scales[which]);
        codes[i] = static_cast<uint8_t>(code > levels ? levels : code > 0 ? code : 0);
    }
}

// Of codes [channels], WIDTH bits from `shift` on; the last byte may be of fewer.
template <int WIDTH>
void pack_bits(const uint8_t *codes, int64_t channels, int shift, uint8_t *to) {
    constexpr int each = 8 / WIDTH, mask = (1 << WIDTH) - 1;
    const int64_t whole = channels / each;
    for (int64_t byte = 0; byte < whole; byte++) {
        int word = 0;
        for (int i = 0; i < each; i++)
            word |= (codes[byte * each + i] >> shift & mask) << i * WIDTH;
        to[byte] = static_cast<uint8_t>(word);
    }
    if (channels == whole * each) return;
    int word = 0;
    for (int64_t i = whole * each; i < channels; i++)
        word |= (codes[i] >> shift & mask) << (i - whole * each) * WIDTH;
    to[whole] = static_cast<uint8_t>(word);
}

// What is no number counts as the largest, as torch has it; it has no order of its own.
float size_of(float x) { return std::isnan(x) ? INFINITY : std::abs(x); }

// Puts codes into the planes that there are, the narrowest lowest; each row fills whole bytes.
void pack_row(const uint8_t *codes, int64_t channels, int64_t row, uint8_t *const *planes) {
    int shift = 0;
    for (int plane = 0; plane < 4; plane++) {
        if (!planes[plane]) continue;
        constexpr decltype(&pack_bits<1>) pack[] = {pack_bits<1>, pack_bits<2>, pack_bits<4>,
                                                    pack_bits<8>};
        pack[plane](codes, channels, shift, planes[plane] + row * bytes_of(channels, 1 << plane));
        shift += 1 << plane;
    }
}

}  // namespace

extern "C" {

// Rounds chunks of states [chunks, count, channels] to codes; a range is divided evenly, and scale
// and offset are rounded to bfloat16 before a code is chosen.
void hold_codes(const float *states, int64_t chunks, int64_t count, int64_t channels, int64_t bits,
                int64_t by_channel, uint8_t *const *planes, uint16_t *scales, uint16_t *offsets) {
    const int64_t shared = by_channel ? channels : count;
    std::vector<float> low(shared), high(shared);
    std::vector<uint8_t> codes(channels);
    for (int64_t chunk = 0; chunk < chunks; chunk++, states += count * channels) {
        ranges(states, count, channels, by_channel, low.data(), high.data());
        const float levels = static_cast<float>((1 << bits) - 1);
        for (int64_t i = 0; i < shared; i++) {
            const uint16_t step = narrowed(std::max((high[i] - low[i]) / levels, 1e-8f));
            const uint16_t offset = narrowed(low[i]);
            scales[chunk * shared + i] = step, offsets[chunk * shared + i] = offset;
            high[i] = widened(step), low[i] = widened(offset);
        }
        for (int64_t token = 0; token < count; token++) {
            round_row(states + token * channels, high.data() + (by_channel ? 0 : token),
                      low.data() + (by_channel ? 0 : token), by_channel, levels, channels,
                      codes.data());
            pack_row(codes.data(), channels, chunk * count + token, planes);
        }
    }
}

// Keeps the largest channels of rows, the first ones where sizes are equal: bits [rows, bytes] and
// values [rows, kept] in bfloat16.
void hold_kept(const float *states, int64_t rows, int64_t channels, int64_t kept, uint8_t *bitmap,
               uint16_t *values) {
    std::vector<float> sizes(channels);
    const int64_t bytes = bytes_of(channels, 1);
    std::fill_n(bitmap, rows * bytes, 0);
    for (int64_t row = 0; row < rows; row++, states += channels, bitmap += bytes) {
        std::transform(states, states + channels, sizes.data(), size_of);
        std::nth_element(sizes.begin(), sizes.begin() + (kept - 1), sizes.end(),
                         std::greater<float>());
        const float least = sizes[kept - 1];
        int64_t equal = kept - std::count_if(sizes.begin(), sizes.begin() + kept,
                                             [&](float size) { return size > least; });
        for (int64_t i = 0; i < channels; i++) {
            const float size = size_of(states[i]);
            if (size < least || (size == least && equal-- <= 0)) continue;
            bitmap[i / 8] |= static_cast<uint8_t>(1 << i % 8);
            *values++ = narrowed(states[i]);
        }
    }
}
}
