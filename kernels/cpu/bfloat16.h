// A number in bfloat16 is the upper half of the same number in float32.
#pragma once

#include <cstdint>

inline float widened(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
