// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// SHA-256 (FIPS 180-4) of two equally long texts at once. One text keeps the processor's SHA instructions waiting for
// each other; two in turn are hashed half as fast again as one after the other.
#ifndef RELIGHT_CSHA256_H
#define RELIGHT_CSHA256_H

#include <stddef.h>
#include <stdint.h>

/// Whether this processor has what `relight_sha256_pair` needs.
int relight_sha256_pair_available(void);

/// Hashes `length` bytes at `left` and at `right`; 2 × 32 bytes to `digests`. `prefix`, unless NULL, is a block of 64
/// bytes hashed before both (the inner key of an HMAC). Only where `relight_sha256_pair_available`.
void relight_sha256_pair(const uint8_t *prefix, const uint8_t *left, const uint8_t *right, size_t length,
                         uint8_t *digests);

#endif
