// Numbers as tensors hold them, and the functions of them that loops here need in a form that compilers vectorize.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

// Loads of a structure are not vectorized, those of an enumeration are.
enum class bf16 : uint16_t {};

inline float widen(float value) { return value; }
inline float widen(bf16 value) { return std::bit_cast<float>(uint32_t(value) << 16); }

inline void assign(float& target, float value) { target = value; }
inline void assign(bf16& target, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    // To nearest, ties to even; a NaN stays one.
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    target = bf16((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// e^x to 2 units in the last place; below -87 it stays at e^-87, which no sum notices. NaN stays NaN.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    // Adding 1.5 * 2^23 rounds to whole numbers.
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * r * r + r + 1.0f;
    const uint32_t power = (std::bit_cast<uint32_t>(shifted) - 0x4b400000u + 127u) << 23;
    return sum * std::bit_cast<float>(power);
}

inline float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }
