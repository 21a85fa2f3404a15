// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#include "CUnpack.h"

#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { done, damaged, no_memory, stopped };

static const size_t piece = 1 << 18;
static const uint64_t memory_limit = 256 << 20;

static int unpack_gzip(const uint8_t *bytes, size_t count, size_t *taken, relight_unpack_sink sink, void *context,
                       uint8_t *out) {
    z_stream stream = {0};
    // 16: the gzip format only.
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return no_memory;
    int outcome = damaged;
    size_t given = 0;
    for (;;) {
        if (stream.avail_in == 0) {
            size_t rest = count - given;
            stream.avail_in = rest < (1u << 30) ? (uInt)rest : 1u << 30;
            stream.next_in = (Bytef *)bytes + given;
            given += stream.avail_in;
        }
        stream.next_out = out;
        stream.avail_out = (uInt)piece;
        int state = inflate(&stream, Z_NO_FLUSH);
        size_t made = piece - stream.avail_out;
        if (made > 0 && sink(context, out, made) != 0) {
            outcome = stopped;
            break;
        }
        if (state == Z_STREAM_END) {
            outcome = done;
            break;
        }
        if (state == Z_MEM_ERROR) outcome = no_memory;
        if (state != Z_OK || (made == 0 && stream.avail_in == 0 && given == count)) break;
    }
    *taken = given - stream.avail_in;
    inflateEnd(&stream);
    return outcome;
}

static int unpack_lzma(int is_xz, const uint8_t *bytes, size_t count, size_t *taken, relight_unpack_sink sink,
                       void *context, uint8_t *out) {
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret state = is_xz ? lzma_stream_decoder(&stream, memory_limit, 0) : lzma_alone_decoder(&stream, memory_limit);
    if (state != LZMA_OK) return no_memory;
    stream.next_in = bytes;
    stream.avail_in = count;
    int outcome = damaged;
    for (;;) {
        stream.next_out = out;
        stream.avail_out = piece;
        state = lzma_code(&stream, LZMA_RUN);
        size_t made = piece - stream.avail_out;
        if (made > 0 && sink(context, out, made) != 0) {
            outcome = stopped;
            break;
        }
        if (state == LZMA_STREAM_END) {
            outcome = done;
            break;
        }
        if (state == LZMA_MEM_ERROR || state == LZMA_MEMLIMIT_ERROR) outcome = no_memory;
        if (state != LZMA_OK || (made == 0 && stream.avail_in == 0)) break;
    }
    *taken = count - stream.avail_in;
    lzma_end(&stream);
    return outcome;
}

static int unpack_zstd(const uint8_t *bytes, size_t count, size_t *taken, relight_unpack_sink sink, void *context,
                       uint8_t *out) {
    ZSTD_DCtx *stream = ZSTD_createDCtx();
    if (stream == NULL) return no_memory;
    // The kernel's own limit: windows of 128 MiB.
    ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 27);
    ZSTD_inBuffer input = {bytes, count, 0};
    int outcome = damaged;
    for (;;) {
        ZSTD_outBuffer output = {out, piece, 0};
        size_t state = ZSTD_decompressStream(stream, &output, &input);
        if (output.pos > 0 && sink(context, out, output.pos) != 0) {
            outcome = stopped;
            break;
        }
        if (state == 0) {
            outcome = done;
            break;
        }
        if (ZSTD_isError(state) || (output.pos == 0 && input.pos == count)) break;
    }
    *taken = input.pos;
    ZSTD_freeDCtx(stream);
    return outcome;
}

static uint32_t little_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int unpack_lz4(const uint8_t *bytes, size_t count, size_t *taken, relight_unpack_sink sink, void *context) {
    const uint32_t magic = 0x184C2102, block = 8 << 20;
    char *out = malloc(block);
    if (out == NULL) return no_memory;
    int outcome = damaged;
    size_t at = 4;
    while (count >= 4) {
        // The stream ends with the bytes, or where no length can be.
        uint32_t length = count - at >= 4 ? little_endian(bytes + at) : 0;
        if (length == magic) {
            at += 4;
            continue;
        }
        if (length == 0 || length > (uint32_t)LZ4_COMPRESSBOUND(8 << 20) || length > count - at - 4) {
            outcome = at > 4 ? done : damaged;
            break;
        }
        int made = LZ4_decompress_safe((const char *)bytes + at + 4, out, (int)length, (int)block);
        if (made < 0) break;
        at += 4 + (size_t)length;
        if (made > 0 && sink(context, (const uint8_t *)out, (size_t)made) != 0) {
            outcome = stopped;
            break;
        }
    }
    *taken = at <= count ? at : count;
    free(out);
    return outcome;
}

int relight_unpack(enum relight_unpack_format format, const uint8_t *bytes, size_t count, size_t *taken,
                   relight_unpack_sink sink, void *context) {
    *taken = 0;
    if (format == relight_unpack_lz4) return unpack_lz4(bytes, count, taken, sink, context);
    uint8_t *out = malloc(piece);
    if (out == NULL) return no_memory;
    int outcome = damaged;
    switch (format) {
    case relight_unpack_gzip: outcome = unpack_gzip(bytes, count, taken, sink, context, out); break;
    case relight_unpack_xz: outcome = unpack_lzma(1, bytes, count, taken, sink, context, out); break;
    case relight_unpack_lzma: outcome = unpack_lzma(0, bytes, count, taken, sink, context, out); break;
    case relight_unpack_zstd: outcome = unpack_zstd(bytes, count, taken, sink, context, out); break;
    case relight_unpack_lz4: break;
    }
    free(out);
    return outcome;
}
