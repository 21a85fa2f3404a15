// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// One compressed stream at the start of some bytes, unpacked piece by piece, with the number of bytes it took: what
// follows it in an initramfs is another stream. The work is done by zlib, liblzma, libzstd and liblz4.
#ifndef RELIGHT_CUNPACK_H
#define RELIGHT_CUNPACK_H

#include <stddef.h>
#include <stdint.h>

/// Takes `count` unpacked bytes; 0 to go on, anything else to stop.
typedef int (*relight_unpack_sink)(void *context, const uint8_t *bytes, size_t count);

enum relight_unpack_format {
    relight_unpack_gzip,
    relight_unpack_xz,
    relight_unpack_lzma,
    relight_unpack_zstd,
    /// The legacy frame format that the kernel reads.
    relight_unpack_lz4,
};

/// Unpacks the stream at the start of `bytes` and stores how many bytes it took. 0; 1 where the stream is damaged or cut
/// off; 2 where there is no memory for it (a stream may ask for no more than 256 MiB); 3 where the sink stopped.
int relight_unpack(enum relight_unpack_format format, const uint8_t *bytes, size_t count, size_t *taken,
                   relight_unpack_sink sink, void *context);

#endif
