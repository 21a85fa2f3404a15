// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#include "CSHA256.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

enum { LANES = 2, BLOCK = 64 };

// The state in the order the instructions want it.
typedef struct {
    __m128i abef[LANES], cdgh[LANES];
} State;

// FIPS 180-4, section 4.2.2.
static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

int relight_sha256_pair_available(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

__attribute__((target("sha,sse4.1,ssse3"))) static void compress(State *state, const uint8_t *const text[LANES],
                                                                 size_t blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i a[LANES], c[LANES];
    for (int lane = 0; lane < LANES; lane++) {
        a[lane] = state->abef[lane];
        c[lane] = state->cdgh[lane];
    }
    for (size_t block = 0; block < blocks; block++) {
        __m128i w[LANES][4], a_before[LANES], c_before[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            a_before[lane] = a[lane];
            c_before[lane] = c[lane];
            const uint8_t *at = text[lane] + block * BLOCK;
            for (int part = 0; part < 4; part++)
                w[lane][part] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(at + 16 * part)), big_endian);
        }
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            const __m128i k = _mm_load_si128((const __m128i *)(constants + 4 * group));
            __m128i wk[LANES];
#pragma GCC unroll 2
            for (int lane = 0; lane < LANES; lane++) wk[lane] = _mm_add_epi32(w[lane][group & 3], k);
#pragma GCC unroll 2
            for (int lane = 0; lane < LANES; lane++) c[lane] = _mm_sha256rnds2_epu32(c[lane], a[lane], wk[lane]);
#pragma GCC unroll 2
            for (int lane = 0; lane < LANES; lane++)
                a[lane] = _mm_sha256rnds2_epu32(a[lane], c[lane], _mm_shuffle_epi32(wk[lane], 0x0e));
            if (group >= 12) continue;
#pragma GCC unroll 2
            for (int lane = 0; lane < LANES; lane++) {
                __m128i next = _mm_sha256msg1_epu32(w[lane][group & 3], w[lane][(group + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[lane][(group + 3) & 3], w[lane][(group + 2) & 3], 4));
                w[lane][group & 3] = _mm_sha256msg2_epu32(next, w[lane][(group + 3) & 3]);
            }
        }
        for (int lane = 0; lane < LANES; lane++) {
            a[lane] = _mm_add_epi32(a[lane], a_before[lane]);
            c[lane] = _mm_add_epi32(c[lane], c_before[lane]);
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        state->abef[lane] = a[lane];
        state->cdgh[lane] = c[lane];
    }
}

__attribute__((target("sha,sse4.1,ssse3"))) void relight_sha256_pair(const uint8_t *prefix, const uint8_t *left,
                                                                     const uint8_t *right, size_t length,
                                                                     uint8_t *digests) {
    // FIPS 180-4, section 5.3.3.
    const __m128i abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    const __m128i cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    State state = {{abef, abef}, {cdgh, cdgh}};
    const uint8_t *text[LANES] = {left, right};
    if (prefix) {
        const uint8_t *both[LANES] = {prefix, prefix};
        compress(&state, both, 1);
    }
    compress(&state, text, length / BLOCK);

    // The rest, 0x80, zeros, and the number of bits: one block or two.
    uint8_t ends[LANES][2 * BLOCK] = {{0}};
    const size_t rest = length % BLOCK;
    const size_t blocks = rest + 9 > BLOCK ? 2 : 1;
    const uint64_t bits = ((uint64_t)length + (prefix ? BLOCK : 0)) * 8;
    for (int lane = 0; lane < LANES; lane++) {
        memcpy(ends[lane], text[lane] + length - rest, rest);
        ends[lane][rest] = 0x80;
        for (int byte = 0; byte < 8; byte++) ends[lane][blocks * BLOCK - 1 - byte] = (uint8_t)(bits >> (8 * byte));
        text[lane] = ends[lane];
    }
    compress(&state, text, blocks);
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t first[4], second[4];
        _mm_storeu_si128((__m128i *)first, state.abef[lane]);
        _mm_storeu_si128((__m128i *)second, state.cdgh[lane]);
        const uint32_t words[8] = {first[3],  first[2], second[3], second[2],
                                   first[1],  first[0], second[1], second[0]};
        for (int word = 0; word < 8; word++)
            for (int byte = 0; byte < 4; byte++)
                digests[32 * lane + 4 * word + byte] = (uint8_t)(words[word] >> (24 - 8 * byte));
    }
}

#else

int relight_sha256_pair_available(void) { return 0; }
void relight_sha256_pair(const uint8_t *prefix, const uint8_t *left, const uint8_t *right, size_t length,
                         uint8_t *digests) {
    (void)prefix, (void)left, (void)right, (void)length, (void)digests;
}

#endif
