// Vectors of W floats and of W "units": 32 bits that hold one float or two neighbouring bfloat16.
// Everything above this file is written for any W; AVX-512 and AVX2 with FMA are here.
#pragma once
#include <immintrin.h>

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

inline U load_units(const void* p) { return _mm512_loadu_si512(p); }
inline U load_bytes(const void* p, int n) { return _mm512_maskz_loadu_epi8((uint64_t(1) << n) - 1, p); }
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

// The sums over the lanes of each of four vectors.
inline __m128 sum4(F a, F b, F c, F d) {
    F ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    F cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    F all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                          _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// `sum4` of four rows of four vectors, one behind the other: the same sums in the same order.
inline void store_sums(float* out, const F (&rows)[4][4]) {
    F quarters[4];  // of row r: sums of every fourth lane, which are still to be added up across quarters
    UNROLL
    for (int r = 0; r < 4; r++) {
        const F* v = rows[r];
        F ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        F cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        quarters[r] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                                    _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
    }
    auto fold = [](F a, F b) { return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); };
    F ab = fold(quarters[0], quarters[1]), cd = fold(quarters[2], quarters[3]);
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd)));
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

inline U load_units(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
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

inline __m128 sum4(F a, F b, F c, F d) {
    F all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

// `sum4` of two rows of four vectors, one behind the other.
inline void store_sums(float* out, const F (&rows)[2][4]) {
    UNROLL
    for (int r = 0; r < 2; r++) _mm_storeu_ps(out + r * 4, sum4(rows[r][0], rows[r][1], rows[r][2], rows[r][3]));
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

// Four numbers, of which the first `there` exist.
inline void store4(float* p, __m128 v, int there) {
    if (there >= 4) return _mm_storeu_ps(p, v);
    alignas(16) float values[4];
    _mm_store_ps(values, v);
    std::memcpy(p, values, there * sizeof(float));
}
inline void store4(bf16* p, __m128 v, int there) {
    __m128i bits = _mm_castps_si128(v);
    __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    __m128i rounded = _mm_srli_epi32(_mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff))), 16);
    rounded = _mm_blendv_epi8(rounded, _mm_set1_epi32(0x7fc0), _mm_castps_si128(_mm_cmpunord_ps(v, v)));
    int64_t four = _mm_cvtsi128_si64(_mm_packus_epi32(rounded, rounded));
    std::memcpy(p, &four, there >= 4 ? 8 : there * sizeof(bf16));
}
inline void copy4(float* p, const float* from, int there) { store4(p, _mm_loadu_ps(from), there); }
inline void copy4(bf16* p, const bf16* from, int there) {
    int64_t four;
    std::memcpy(&four, from, 8);
    if (there >= 4) _mm_storel_epi64((__m128i*)p, _mm_cvtsi64_si128(four));
    else std::memcpy(p, &four, there * sizeof(bf16));
}
inline __m128 load4(const float* p, int there) {
    if (there >= 4) return _mm_loadu_ps(p);
    alignas(16) float values[4] = {};
    std::memcpy(values, p, there * sizeof(float));
    return _mm_load_ps(values);
}
