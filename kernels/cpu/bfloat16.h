// A number in bfloat16 is the upper half of the same number in float32.
#pragma once

#include <cstdint>

inline float widened(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

// The nearest, an even one where two are as near.
inline uint16_t narrowed(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
