#!/usr/bin/env python3
# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs a pack of an image set with the parity section inside it, knowing docs/image-format.md only.

    repair_pack.py PACK [REPAIRED]

Says what is damaged; with a second name, writes the repaired pack there (PACK itself is never changed). The pack's id
is taken from the file's name. Exit status: 0 nothing damaged, 1 repaired or repairable, 2 cannot be repaired.
Footer and trailer are made again from the records when they are damaged.
"""
import hashlib
import os
import struct
import sys

BLOCK, STRIP, HEADER = 4096, 512, 128

POWERS = [1]
while len(POWERS) < 255:
    POWERS.append(POWERS[-1] << 1 ^ (0x11D if POWERS[-1] & 0x80 else 0))
LOGS = {power: exponent for exponent, power in enumerate(POWERS)}


def times(a, b):
    return POWERS[(LOGS[a] + LOGS[b]) % 255] if a and b else 0


def inverse(a):
    return POWERS[-LOGS[a] % 255]


def coefficient(row, column):
    return inverse((255 - row) ^ column)


def add_product(total, factor, strips):
    """total += factor * strips; a block is a list of eight strips, each a whole number of 4096 bits."""
    for bit in range(8):
        column = times(factor, 1 << bit)
        for row in range(8):
            if column >> row & 1:
                total[row] ^= strips[bit]


def strips_of(block):
    return [int.from_bytes(block[i * STRIP:(i + 1) * STRIP], "little") for i in range(8)]


def block_of(strips):
    return b"".join(strip.to_bytes(STRIP, "little") for strip in strips)


def solve(matrix, sums):
    """Gauss-Jordan on a matrix of field elements with blocks on the right-hand side."""
    size = len(matrix)
    for column in range(size):
        pivot = next(row for row in range(column, size) if matrix[row][column])
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        sums[column], sums[pivot] = sums[pivot], sums[column]
        factor, scaled = inverse(matrix[column][column]), [0] * 8
        matrix[column] = [times(factor, value) for value in matrix[column]]
        add_product(scaled, factor, sums[column])
        sums[column] = scaled
        for row in range(size):
            if row != column and matrix[row][column]:
                factor = matrix[row][column]
                matrix[row] = [a ^ times(factor, b) for a, b in zip(matrix[row], matrix[column])]
                add_product(sums[row], factor, sums[column])
    return sums


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


class Section:
    """The parity section of a pack, laid out as one of its headers says."""

    def __init__(self, pack, offset, oid):
        head = bytes(pack[offset:offset + HEADER])
        (magic, version, size, block, owner, self.body, self.count, self.groups, self.k, self.m) = struct.unpack(
            "<8sHHI16sQIIHH", head[:52])
        if magic != b"RLGTPARI" or (version, size, block) != (1, HEADER, BLOCK) or owner != oid \
                or crc32c(head[:124]) != struct.unpack("<I", head[124:])[0]:
            raise ValueError
        self.head, self.hash = head, head[64:96]
        self.all = self.count + self.groups * self.m
        self.table_size = (8 * self.all + 15) // 16 * 16
        self.tables = [self.body + HEADER, 0]
        self.parity = self.tables[0] + self.table_size
        self.tables[1] = self.parity + self.groups * self.m * BLOCK
        self.heads = [self.body, self.tables[1] + self.table_size]
        self.end = self.heads[1] + HEADER
        if offset not in self.heads:
            raise ValueError

    def start(self, index):
        return index * BLOCK if index < self.count else self.parity + (index - self.count) * BLOCK

    def block(self, pack, index):
        end = min(self.start(index) + BLOCK, self.body) if index < self.count else self.start(index) + BLOCK
        return bytes(pack[self.start(index):end]).ljust(BLOCK, b"\0")

    def put(self, pack, index, block):
        end = min(self.start(index) + BLOCK, self.body) if index < self.count else self.start(index) + BLOCK
        pack[self.start(index):end] = block[:end - self.start(index)]


def find(pack, oid):
    place = len(pack)
    while (place := pack.rfind(b"RLGTPARI", 0, place)) >= 0:
        try:
            return Section(pack, place, oid)
        except (ValueError, struct.error):
            continue
    return None


def check(block):
    return hashlib.sha256(block).digest()[:8]


def repair(pack, section):
    """Repairs body and section in place; returns the damaged blocks, or raises when there are too many."""
    s = section
    pack.extend(bytes(max(0, s.end - len(pack))))
    tables = [bytes(pack[at:at + s.table_size]) for at in s.tables]
    whole = [table for table in tables if hashlib.sha256(table).digest() == s.hash]
    known = [[table[8 * i:8 * i + 8] for table in whole[:1] or tables] for i in range(s.all)]
    damaged = [i for i in range(s.all) if check(s.block(pack, i)) not in known[i]]
    for group in sorted({(i if i < s.count else i - s.count) % s.groups for i in damaged}):
        columns = [c for c in range(s.k) if c * s.groups + group < s.count]
        lost = [c for c in columns if c * s.groups + group in damaged]
        sound = [r for r in range(s.m) if s.count + r * s.groups + group not in damaged][:len(lost)]
        if len(sound) < len(lost):
            raise ArithmeticError(f"group {group} has lost {len(lost)} data blocks and has {len(sound)} parity blocks")
        rest = {c: strips_of(s.block(pack, c * s.groups + group)) for c in columns if c not in lost}
        sums = []
        for row in sound:
            sums.append(strips_of(s.block(pack, s.count + row * s.groups + group)))
            for column, strips in rest.items():
                add_product(sums[-1], coefficient(row, column), strips)
        for column, strips in zip(lost, solve([[coefficient(r, c) for c in lost] for r in sound], sums)):
            rest[column] = strips
            s.put(pack, column * s.groups + group, block_of(strips))
        for row in range(s.m):
            if (index := s.count + row * s.groups + group) in damaged:
                total = [0] * 8
                for column, strips in rest.items():
                    add_product(total, coefficient(row, column), strips)
                s.put(pack, index, block_of(total))
    table = b"".join(check(s.block(pack, i)) for i in range(s.all)).ljust(s.table_size, b"\0")
    if hashlib.sha256(table).digest() != s.hash:
        raise ArithmeticError("what was computed does not fit the hash in the header")
    for at, bytes_ in [(s.tables[0], table), (s.tables[1], table), (s.heads[0], s.head), (s.heads[1], s.head)]:
        pack[at:at + len(bytes_)] = bytes_
    return damaged


def footer_of(pack, section):
    """Footer and trailer, which follow from header, records and parity section."""
    end, at, records = section.end, 192, []
    while at < section.body:
        head = 48 + 32 * pack[at + 7]
        if pack[at:at + 4] != b"RLRC":
            raise ArithmeticError(f"there is no record at byte {at}")
        records.append(struct.pack("<Q", at) + bytes(pack[at:at + head]))
        at += (head + struct.unpack("<I", pack[at + 12:at + 16])[0] + 15) // 16 * 16
    segments = []
    for start in range(0, end, 4 << 20):
        piece = pack[start:min(start + (4 << 20), end)]
        parts = [hashlib.sha256(piece[i:i + 65536]).digest() for i in range(0, len(piece), 65536)]
        segments.append(hashlib.sha256(b"".join(parts)).digest())
    footer = struct.pack("<8sIIIIQ", b"RLGTFOOT", len(records), len(segments), 4 << 20, 0, section.body)
    footer += b"".join(records) + b"".join(segments)
    trailer = struct.pack("<8sQQ", b"RLGTSEAL", end, len(footer)) + hashlib.sha256(footer).digest() + bytes(4)
    return footer + trailer + struct.pack("<I", crc32c(trailer))


def main():
    name = sys.argv[1]
    oid = bytes.fromhex(os.path.basename(name).split(".")[0])
    with open(name, "rb") as file:
        before = file.read()
    pack = bytearray(before)
    section = find(pack, oid)
    if section is None:
        print("no parity section, or both of its headers are damaged")
        return 2
    try:
        damaged = repair(pack, section)
        pack[section.end:] = footer_of(pack, section)
    except ArithmeticError as error:
        print(f"cannot be repaired: {error}")
        return 2
    for index in damaged:
        print(f"damaged: {'data' if index < section.count else 'parity'} block at byte {section.start(index)}")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "wb") as file:
            file.write(pack)
    print("sound" if pack == before else "repaired")
    return int(pack != before)


sys.exit(main())
