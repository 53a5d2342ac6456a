// Vectors of W floats and of W "units": 32 bits that hold one float or two neighbouring bfloat16.
// Everything above this file is written for any W; AVX-512 and AVX2 with FMA are here.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// Loops over registers, which must not become loops over memory.
#define UNROLL _Pragma("GCC unroll 16")

struct bf16 {
    uint16_t bits;
};

// How many elements a unit holds.
template <class T>
constexpr int UNIT = 4 / sizeof(T);

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}
inline void assign(float& target, float value) { target = value; }
inline void assign(bf16& target, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    // To nearest, ties to even; a NaN stays one.
    target.bits = std::isnan(value) ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

constexpr int W = 16;
using F = __m512;
using U = __m512i;
using Mask = __mmask16;

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline F load(const float* p, int n) { return _mm512_maskz_loadu_ps((1u << n) - 1, p); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline void store(float* p, F v, int n) { _mm512_mask_storeu_ps(p, (1u << n) - 1, v); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F scale_by_power(F a, F n) { return _mm512_scalef_ps(a, n); }
inline F select(Mask m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
inline Mask is_above(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline bool any_nan(F v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
inline float sum(F v) { return _mm512_reduce_add_ps(v); }
inline float greatest(F v) { return _mm512_reduce_max_ps(v); }

// Lanes i with begin <= first + i < end.
inline Mask in_range(int first, int begin, int end) {
    __m512i index = _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    return _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(begin)) & _mm512_cmplt_epi32_mask(index, _mm512_set1_epi32(end));
}

inline U nothing() { return _mm512_setzero_si512(); }
inline U load_units(const void* p) { return _mm512_loadu_si512(p); }
inline void store_units(void* p, U v) { _mm512_storeu_si512(p, v); }
inline U load_bytes(const void* p, int n) { return _mm512_maskz_loadu_epi8(n == 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1, p); }
inline U repeat_unit(const void* p) {
    int32_t unit;
    std::memcpy(&unit, p, 4);
    return _mm512_set1_epi32(unit);
}
inline U first_halves(U v) { return _mm512_and_si512(v, _mm512_set1_epi32(0xffff)); }

template <class T>
inline F dot(F sums, U a, U b);
template <>
inline F dot<float>(F sums, U a, U b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sums);
}
#ifdef __AVX512BF16__
template <>
inline F dot<bf16>(F sums, U a, U b) { return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b); }
inline __m256i round_to_bf16(F v) { return (__m256i)_mm512_cvtneps_pbh(v); }
#else
template <>
inline F dot<bf16>(F sums, U a, U b) {
    const U high = _mm512_set1_epi32(int(0xffff0000));
    sums = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), sums);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)), _mm512_castsi512_ps(_mm512_and_si512(b, high)), sums);
}
inline __m256i round_to_bf16(F v) {
    U bits = _mm512_castps_si512(v);
    U odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    U rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    rounded = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, _mm512_set1_epi32(0x7fc0));
    return _mm512_cvtepi32_epi16(rounded);
}
#endif
// Into every second number: what is between them may be written by another thread meanwhile.
inline void store_every_second(bf16* p, F v) { _mm512_mask_storeu_epi16(p, 0x55555555, _mm512_cvtepu16_epi32(round_to_bf16(v))); }
inline void store(bf16* p, F v) { _mm256_storeu_si256((__m256i*)p, round_to_bf16(v)); }
inline void store(bf16* p, F v, int n) { _mm256_mask_storeu_epi16(p, (1u << n) - 1, round_to_bf16(v)); }
inline F load(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

// Units of two vectors side by side: the first one's numbers, then the other's.
inline U join(bf16, F first, F second) { return _mm512_inserti64x4(_mm512_castsi256_si512(round_to_bf16(first)), round_to_bf16(second), 1); }

// rows[i][j] becomes rows[j][i].
inline void transpose(U (&rows)[W]) {
    U pairs[W];
    UNROLL
    for (int i = 0; i < W; i += 4)
        UNROLL
        for (int h = 0; h < 2; h++) {  // columns 4 q + 2 h and 4 q + 2 h + 1 of rows i to i + 3, in each quarter q
            U even = h ? _mm512_unpackhi_epi32(rows[i], rows[i + 1]) : _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            U odd = h ? _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]) : _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
            pairs[i + 2 * h] = _mm512_unpacklo_epi64(even, odd);
            pairs[i + 2 * h + 1] = _mm512_unpackhi_epi64(even, odd);
        }
    UNROLL
    for (int c = 0; c < 4; c++) {
        U first = _mm512_shuffle_i32x4(pairs[c], pairs[c + 4], 0x44), second = _mm512_shuffle_i32x4(pairs[c + 8], pairs[c + 12], 0x44);
        rows[c] = _mm512_shuffle_i32x4(first, second, 0x88);
        rows[c + 4] = _mm512_shuffle_i32x4(first, second, 0xdd);
        first = _mm512_shuffle_i32x4(pairs[c], pairs[c + 4], 0xee), second = _mm512_shuffle_i32x4(pairs[c + 8], pairs[c + 12], 0xee);
        rows[c + 8] = _mm512_shuffle_i32x4(first, second, 0x88);
        rows[c + 12] = _mm512_shuffle_i32x4(first, second, 0xdd);
    }
}

#elif defined(__AVX2__) && defined(__FMA__)

constexpr int W = 8;
using F = __m256;
using U = __m256i;
using Mask = __m256;

inline U first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline F zero() { return _mm256_setzero_ps(); }
inline F set1(float x) { return _mm256_set1_ps(x); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline F load(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store(float* p, F v) { _mm256_storeu_ps(p, v); }
inline void store(float* p, F v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F max(F a, F b) { return _mm256_max_ps(a, b); }
inline F min(F a, F b) { return _mm256_min_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F scale_by_power(F a, F n) {
    U power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(power));
}
inline F select(Mask m, F a, F b) { return _mm256_blendv_ps(b, a, m); }
inline Mask is_above(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
inline bool any_nan(F v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) != 0; }
inline float sum(F v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float greatest(F v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline Mask in_range(int first, int begin, int end) {
    U index = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    U below = _mm256_cmpgt_epi32(_mm256_set1_epi32(begin), index);
    return _mm256_castsi256_ps(_mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(end), index)));
}

inline U nothing() { return _mm256_setzero_si256(); }
inline U load_units(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline void store_units(void* p, U v) { _mm256_storeu_si256((__m256i*)p, v); }
inline U load_bytes(const void* p, int n) {
    alignas(32) unsigned char bytes[32] = {};
    std::memcpy(bytes, p, n);
    return load_units(bytes);
}
inline U repeat_unit(const void* p) {
    int32_t unit;
    std::memcpy(&unit, p, 4);
    return _mm256_set1_epi32(unit);
}
inline U first_halves(U v) { return _mm256_and_si256(v, _mm256_set1_epi32(0xffff)); }

template <class T>
inline F dot(F sums, U a, U b);
template <>
inline F dot<float>(F sums, U a, U b) {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), sums);
}
template <>
inline F dot<bf16>(F sums, U a, U b) {
    const U high = _mm256_set1_epi32(int(0xffff0000));
    sums = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)), sums);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(a, high)), _mm256_castsi256_ps(_mm256_and_si256(b, high)), sums);
}
inline __m128i round_to_bf16(F v) {
    U bits = _mm256_castps_si256(v);
    U odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    U rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}
inline void store(bf16* p, F v) { _mm_storeu_si128((__m128i*)p, round_to_bf16(v)); }
inline void store(bf16* p, F v, int n) {
    bf16 values[8];
    store(values, v);
    std::memcpy(p, values, 2 * n);
}
inline void store_every_second(bf16* p, F v) {
    bf16 values[8];
    store(values, v);
    for (int i = 0; i < 8; i++) p[2 * i] = values[i];
}
inline F load(const bf16* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}

inline U join(bf16, F first, F second) { return _mm256_set_m128i(round_to_bf16(second), round_to_bf16(first)); }

inline void transpose(U (&rows)[W]) {
    U pairs[W];
    UNROLL
    for (int i = 0; i < W; i += 4)
        UNROLL
        for (int h = 0; h < 2; h++) {
            U even = h ? _mm256_unpackhi_epi32(rows[i], rows[i + 1]) : _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
            U odd = h ? _mm256_unpackhi_epi32(rows[i + 2], rows[i + 3]) : _mm256_unpacklo_epi32(rows[i + 2], rows[i + 3]);
            pairs[i + 2 * h] = _mm256_unpacklo_epi64(even, odd);
            pairs[i + 2 * h + 1] = _mm256_unpackhi_epi64(even, odd);
        }
    UNROLL
    for (int c = 0; c < 4; c++) {
        rows[c] = _mm256_permute2x128_si256(pairs[c], pairs[c + 4], 0x20);
        rows[c + 4] = _mm256_permute2x128_si256(pairs[c], pairs[c + 4], 0x31);
    }
}

#else
#error "the processor has neither AVX-512 nor AVX2 with FMA"
#endif

// exp to about one unit in the last place; below -87 it gives about 1e-38 and not 0.
inline F exp(F x) {
    x = min(max(x, set1(-87.0f)), set1(88.0f));
    F n = round(mul(x, set1(1.44269504088896341f)));
    F r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    F p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, set1(1.0f)));
    return scale_by_power(p, n);
}

// x / (1 + exp(-x))
inline F silu(F x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

// The first `count` of up to W * UNIT<T> numbers of a row as units, with zeros behind them.
inline U units_of(float, const float* row, int count) { return load_bytes(row, count * 4); }
inline U units_of(bf16, const bf16* row, int count) { return load_bytes(row, count * 2); }
inline U units_of(bf16, const float* row, int count) {
    int here = std::min(count, W);
    return join(bf16{}, load(row, here), here < count ? load(row + W, count - here) : zero());
}
