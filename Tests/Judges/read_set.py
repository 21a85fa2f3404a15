#!/usr/bin/env python3
# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
"""An independent reader of Relight image sets, format version 1, written from docs/image-format.md alone.

    read_set.py [KEY] list SET                   a line for each recovery point: oid, number, name, disks, used bytes
    read_set.py [KEY] restore SET POINT FOLDER   writes FOLDER/disk0.img, disk1.img, ... (POINT: oid prefix or "latest")
    read_set.py check SET                        footers made again from the records must equal those stored

KEY, for an encrypted set: --passphrase-file FILE (one line end at its end is left out) or --key-file FILE.
Exit status 0, or 1 with a sentence on standard error. Needs Python 3.8; to decompress, the module zstandard, the library
libzstd.so.1, or the program zstd; to decrypt, the module cryptography.
"""
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import os
import struct
import subprocess
import sys

PAGE_UNITS, SEGMENT, FRAME = 512, 4194304, 262144


class Damaged(Exception):
    pass


class Unknown(Damaged):
    """Another version of the format, or features that are not known."""


def same_set(header, other):
    """Section 3: all but masks and reserved bytes."""
    return header[:12] == other[:12] and header[24:63] == other[24:63] and header[64:96] == other[64:96]


def need(condition, what):
    if not condition:
        raise Damaged(what)


# --- section 2: checks, numbers ---------------------------------------------------------------------------------------

TABLE = []
for i in range(256):
    value = i
    for _ in range(8):
        value = value >> 1 ^ 0x82F63B78 if value & 1 else value >> 1
    TABLE.append(value)


def check(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


assert check(b"123456789") == 0xE3069283


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(count <= len(self.data) - self.at, "a structure ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def u64(self):
        return struct.unpack("<Q", self.take(8))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                need(value < 1 << 64 and (byte or not shift), "a malformed number")
                return value
            shift += 7
            need(shift < 70, "a malformed number")

    def runs(self, limit):
        result, end = [], 0
        count = self.varint()
        need(count <= 4194304, "too many runs")
        for index in range(count):
            gap, length = self.varint(), self.varint()
            need((gap or not index) and length, "runs that touch or are empty")
            result.append((end + gap, length))
            end += gap + length
            need(end <= limit, "a run passes the end of its stream")
        return result

    def done(self):
        return self.at == len(self.data)


def decompress(data, size):
    try:
        import zstandard

        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except ImportError:
        try:
            library = ctypes.CDLL("libzstd.so.1")
            library.ZSTD_decompress.restype = ctypes.c_size_t
            library.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2
            target = ctypes.create_string_buffer(size)
            count = library.ZSTD_decompress(target, size, bytes(data), len(data))
            plain = target.raw if count == size else b""
        except OSError:
            plain = subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    need(len(plain) == size, "a payload does not decompress to its length")
    return plain


def payload(compression, plain_length, stored):
    need(compression in (0, 1), "an unknown compression")
    if compression == 0:
        need(len(stored) == plain_length, "a raw payload of another length")
        return stored
    return decompress(stored, plain_length)


def segment_hash(data):
    """Section 5.3: the hash of the hashes of pieces of 64 KiB."""
    pieces = [hashlib.sha256(data[i : i + 65536]).digest() for i in range(0, len(data), 65536)]
    return hashlib.sha256(b"".join(pieces)).digest()


# --- section 8: encryption --------------------------------------------------------------------------------------------


def hkdf(key, salt, info, count=32):
    """RFC 5869 with SHA-256, for at most 32 bytes."""
    return hmac.new(hmac.new(salt, key, "sha256").digest(), info + b"\x01", "sha256").digest()[:count]


def gcm(key):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def decrypt(cipher, nonce, data, additional):
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(nonce, data, additional)
    except InvalidTag:
        raise Damaged("something does not decrypt")


# --- sections 3 and 5: the set, packs ---------------------------------------------------------------------------------


class Set:
    def __init__(self, path, secret=None):
        self.path, self.header, self.files, self.sessions, self.moved = path, None, {}, {}, None
        self.units, self.damaged, other = None, [], None
        for name in ("set.a", "set.b"):
            try:
                self.header = self.sound_header(self.file(name))
                break
            except Unknown as error:
                other = other or error
            except (OSError, Damaged):
                continue
        if not self.header:
            self.header = self.stand_in()
        if not self.header and other:
            raise other
        need(self.header, "neither set.a nor set.b is a sound set header, nor is there another copy")
        self.unit, frame, page = struct.unpack_from("<III", self.header, 48)
        need(self.unit in (65536, 16384) and frame == FRAME and page == PAGE_UNITS, "unknown sizes")
        self.oid, self.cipher = self.header[24:40], self.header[61]
        need(self.cipher <= 2 and self.header[60] == (2 if self.cipher else 1), "an unknown hash or cipher")
        self.id_key = None
        if self.cipher and secret:
            master = self.unlock(*secret)
            self.id_key = hkdf(master, self.oid, b"relight 1 ids")
            self.data_key = hkdf(master, self.oid, b"relight 1 data")

    # --- section 3: the set header and its stand-ins ---

    @staticmethod
    def sound_header(data):
        need(len(data) >= 10 and data[:8] == b"RLGTSET\0", "not a set header")
        version = struct.unpack_from("<H", data, 8)[0]
        if version != 1:
            raise Unknown("the set has version %d of the format; this reader knows 1" % version)
        need(len(data) == 128 and check(data[:124]) == struct.unpack_from("<I", data, 124)[0], "damaged header")
        if struct.unpack_from("<I", data, 12)[0]:
            raise Unknown("features this reader does not know")
        return data

    def stand_in(self):
        """The header that points, packs, key slots and moves hold; they must agree."""
        found, unknown = None, None
        for top, suffix, at in (("points", ".point", 128), ("packs", ".pack", 64), ("keys", ".key", 256), ("moves", ".moves", 128)):
            for folder in (top, "copies/" + top):
                for place, _, names in os.walk(os.path.join(self.path, folder)):
                    for name in names:
                        if not name.endswith(suffix):
                            continue
                        try:
                            with open(os.path.join(place, name), "rb") as file:
                                file.seek(at)
                                header = self.sound_header(file.read(128))
                        except Unknown as error:
                            unknown = unknown or error
                            continue
                        except (OSError, Damaged):
                            continue
                        need(found is None or same_set(found, header), "the objects here belong to different sets")
                        found = found or header
        if not found and unknown:
            raise unknown
        return found

    def unlock(self, kind, secret):
        slots = 0
        for folder in ("keys", "copies/keys"):
            try:
                names = os.listdir(os.path.join(self.path, folder))
            except OSError:
                continue
            for name in sorted(names):
                data = self.file(folder + "/" + name)
                if len(data) != 384 or data[:8] != b"RLGTKEYS" or check(data[:252]) != struct.unpack_from("<I", data, 252)[0]:
                    continue
                version, slot_kind, function = struct.unpack_from("<HBB", data, 8)
                log_n, r, p = data[40], *struct.unpack_from("<II", data, 44)
                need(version == 1 and function == 1 and 10 <= log_n <= 24 and 1 <= r <= 32 and 1 <= p <= 16, "a bad key slot")
                need((128 << log_n) * r <= 1 << 30, "a key slot that asks for too much memory")
                slots += 1
                if slot_kind != kind:
                    continue
                memory = (128 << log_n) * r * 2 + (1 << 20)
                key = hashlib.scrypt(secret, salt=data[64:96], n=1 << log_n, r=r, p=p, maxmem=memory, dklen=32)
                try:
                    master = decrypt(gcm(key), data[96:108], data[112:160], self.oid + data[:112])
                except Damaged:
                    continue
                proof = hkdf(master, self.oid, b"relight 1 check" + self.header[:64])
                need(proof == self.header[64:96], "the header is not the one the key belongs to")
                return master
        raise Damaged("wrong passphrase or key file" if slots else "no sound key slot")

    def id(self, data):
        if self.cipher:
            need(self.id_key, "the set is encrypted: give --passphrase-file or --key-file")
            return hmac.new(self.id_key, data, "sha256").digest()
        return hashlib.sha256(data).digest()

    def opened(self, salt, counter, data, additional):
        """Decrypts what the run `salt` encrypted as number `counter`."""
        need(self.id_key, "the set is encrypted: give --passphrase-file or --key-file")
        if salt not in self.sessions:
            self.sessions[salt] = gcm(hkdf(self.data_key, salt, b"relight 1 session", 32 if self.cipher == 1 else 16))
        return decrypt(self.sessions[salt], struct.pack(">IQ", 0, counter), data, self.oid + additional)

    def file(self, name):
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()

    def read(self, name, offset, size):
        if name not in self.files:
            if len(self.files) > 20:
                self.files.popitem()[1].close()
            self.files[name] = open(os.path.join(self.path, name), "rb")
        self.files[name].seek(offset)
        data = self.files[name].read(size)
        need(len(data) == size, "%s ends early" % name)
        return data

    def head(self, data, at):
        """A record's head at `at`: kind, compression, plain length, stored length, ids, size of the head."""
        need(data[at : at + 4] == b"RLRC" and len(data) >= at + 48, "no record")
        kind, compression, cipher, count, plain, stored = struct.unpack_from("<4B2I", data, at + 4)
        size = 48 + 32 * count
        need(len(data) >= at + size, "a record's head is cut off")
        expected = struct.unpack_from("<I", data, at + 44)[0]
        need(check(data[at : at + 44] + data[at + 48 : at + size]) == expected, "a record's head is damaged")
        need(kind in (1, 2) and compression in (0, 1) and cipher == self.cipher, "an unknown kind of record")
        if kind == 1:
            need(1 <= count <= FRAME // self.unit and (count - 1) * self.unit < plain <= count * self.unit, "a bad frame")
        else:
            need(count == 1 and 1 <= plain <= 65536, "a bad page")
        packed = stored - (16 if cipher else 0)
        need(packed == plain if compression == 0 else 1 <= packed < plain, "a bad stored length")
        ids = [data[at + 48 + 32 * i : at + 80 + 32 * i] for i in range(count)]
        return kind, compression, plain, stored, ids, size

    def record(self, name, offset, size):
        """Kind, ids and plain bytes of the record of `size` bytes at `offset`."""
        data = self.read(name, offset, size)
        kind, compression, plain, stored, ids, head = self.head(data, 0)
        need((head + stored + 15) // 16 * 16 == size, "a record of another size")
        content = data[head : head + stored]
        if self.cipher:
            salt, counter = data[16:32], struct.unpack_from("<Q", data, 32)[0]
            content = self.opened(salt, counter, content, data[:16] + data[48:head])
        return kind, ids, payload(compression, plain, content)

    # --- section 11.3: moves ---

    def moves(self):
        """What all moves objects say: {(pack, offset): [(pack, offset), ...]}."""
        result = {}
        oids = set()
        for folder in ("moves", "copies/moves"):
            try:
                oids |= {name[:-6] for name in os.listdir(os.path.join(self.path, folder)) if name.endswith(".moves")}
            except OSError:
                pass
        for oid in sorted(oids):
            problem = None
            for folder in ("moves", "copies/moves"):
                try:
                    for old, new in self.moves_file("%s/%s.moves" % (folder, oid), oid):
                        result.setdefault(old, []).append(new)
                    break
                except (OSError, Damaged) as error:
                    problem = problem or error
            else:
                raise Damaged("moves %s: %s" % (oid, problem))
        return result

    def moves_file(self, name, oid):
        data = self.file(name)
        need(len(data) >= 256 and data[:8] == b"RLGTMOVE", "not a moves object")
        need(check(data[:124]) == struct.unpack_from("<I", data, 124)[0], "the header is damaged")
        version, compression, size, plain, stored = struct.unpack_from("<HBxIQQ", data, 8)
        need(version == 1 and size == 256 and same_set(data[128:256], self.header), "another format or set")
        need(data[32:48].hex() == oid, "another name")
        need(plain <= 64 << 20 and len(data) == 256 + stored, "a bad length")
        need(hashlib.sha256(data[256:]).digest() == data[64:96], "the stored body does not match its hash")
        cursor = Cursor(payload(compression, plain, data[256:]))
        packs = [cursor.take(16).hex() for _ in range(cursor.varint())]
        need(packs == sorted(set(packs)), "packs out of order")
        result, last = [], -1
        groups = cursor.varint()
        need(groups <= len(packs), "too many groups")
        for _ in range(groups):
            pack, count, offset = cursor.varint(), cursor.varint(), 0
            need(last < pack < len(packs) and count >= 1, "groups out of order")
            last = pack
            for number in range(count):
                gap, target, new = cursor.varint(), cursor.varint(), cursor.varint()
                offset += gap
                need(gap >= (1 if number else 12) and offset < 1 << 28 and 12 <= new < 1 << 28, "a bad offset")
                need(target < len(packs) and target != pack, "a bad pack")
                result.append(((packs[pack], offset * 16), (packs[target], new * 16)))
        need(cursor.done() and len(result) <= 4194304, "moves hold more than they should")
        return result

    def find(self, pack, offset):
        """Where the record lies now."""
        if self.has(pack):
            return pack, offset
        if self.moved is None:
            self.moved = self.moves()
        queue, seen = [(pack, offset)], {(pack, offset)}
        for place in queue:
            for target in self.moved.get(place, []):
                if target not in seen and len(seen) <= 64:
                    if self.has(target[0]):
                        return target
                    seen.add(target)
                    queue.append(target)
        return pack, offset

    def has(self, pack):
        name = "packs/%s/%s.pack" % (pack[:2], pack)
        return any(os.path.exists(os.path.join(self.path, folder, name)) for folder in ("", "copies"))

    def search(self, pack, offset, unit_id, index):
        """Section 11.3, the last line: where a record with this id at this place lies, told by all footers."""
        if self.has(pack):
            return pack, offset
        if self.units is None:
            self.units = {}
            for folder, _, names in os.walk(os.path.join(self.path, "packs")):
                for name in (name for name in names if name.endswith(".pack")):
                    try:
                        self.list_units(os.path.relpath(os.path.join(folder, name), self.path), name[:-5])
                    except (OSError, Damaged, struct.error):
                        continue
        return self.units.get((unit_id, index), (pack, offset))

    def list_units(self, name, pack):
        data = self.file(name)
        trailer = data[-64:]
        need(trailer[:8] == b"RLGTSEAL" and check(trailer[:60]) == struct.unpack_from("<I", trailer, 60)[0], "no trailer")
        offset, length = struct.unpack_from("<QQ", trailer, 8)
        footer = data[offset : offset + length]
        need(hashlib.sha256(footer).digest() == trailer[24:56], "the footer's hash is wrong")
        at = 32
        for _ in range(struct.unpack_from("<I", footer, 8)[0]):
            record = struct.unpack_from("<Q", footer, at)[0]
            ids, size = self.head(footer, at + 8)[4:]
            for index, unit_id in enumerate(ids):
                self.units.setdefault((unit_id, index), (pack, record))
            at += 8 + size

    # --- section 7: points ---

    def point(self, oid):
        problem = None
        for folder in ("points", "copies/points"):
            try:
                return self.point_file("%s/%s.point" % (folder, oid), oid)
            except (OSError, Damaged) as error:
                problem = problem or error
        raise Damaged("point %s: %s" % (oid, problem))

    def point_file(self, name, oid):
        data = self.file(name)
        need(len(data) >= 256 and data[:8] == b"RLGTPOIN", "not a recovery point")
        need(check(data[:124]) == struct.unpack_from("<I", data, 124)[0], "the header is damaged")
        version, compression, cipher, size, plain, stored = struct.unpack_from("<HBBIQQ", data, 8)
        need(version == 1 and cipher == self.cipher and size == 256 and same_set(data[128:256], self.header), "another format or set")
        need(plain <= 128 << 20 and len(data) == 256 + stored, "a bad length")
        need(hashlib.sha256(data[256:]).digest() == data[64:96], "the stored body does not match its hash")
        content = data[256:]
        if self.cipher:
            content = self.opened(data[96:112], struct.unpack_from("<Q", data, 112)[0], content, data[:64])
        body = payload(compression, plain, content)
        root = self.id(body)
        need(root == data[32:64] and root[:16].hex() == oid, "the body does not match its hash or name")
        cursor, point = Cursor(body), {"oid": oid, "streams": []}
        while not cursor.done():
            kind, flags, length = cursor.u32(), cursor.u32(), cursor.u64()
            content = Cursor(cursor.take(length))
            if kind == 1:
                point["facts"] = json.loads(content.take(length))
                need(point["facts"]["schema"] == "relight.point/1", "an unknown schema")
                need(1 <= point["facts"]["number"] <= 1 << 63, "an impossible number")
            elif kind == 2:
                count = content.u32()
                point["packs"] = [(content.take(16).hex(), content.u64(), content.take(32)) for _ in range(count)]
            elif kind == 3:
                point["streams"].append(self.stream(content, point))
            else:
                need(not flags & 1, "an unknown section")
                content.take(length)
            need(content.done(), "a section holds more than it should")
        need("facts" in point and "packs" in point, "a section is missing")
        return point

    def stream(self, content, point):
        stream = dict(zip(("disk", "kind", "volume", "unit"), (content.u32() for _ in range(4))))
        need(stream["kind"] in (1, 2) and stream["unit"] == self.unit, "an unknown kind of stream")
        need(stream["disk"] < len(point["facts"]["facts"]["disks"]), "a stream of a disk that is not described")
        stream["start"], stream["length"] = content.u64(), content.u64()
        need(stream["length"] <= 1 << 60, "a stream too long")
        stream["used"] = content.runs(stream["length"])
        stream["unreadable"] = content.runs(stream["length"])
        stream["pages"], number = [], 0
        for _ in range(content.varint()):
            number += content.varint()
            page = content.take(32)
            pack = point["packs"][content.varint()][0]
            stream["pages"].append((number, page, pack, content.varint() * 16, content.varint() * 16))
            number += 1
        return stream

    def points(self, prefix=""):
        oids = set()
        for folder in ("points", "copies/points"):
            try:
                oids |= {name[:-6] for name in os.listdir(os.path.join(self.path, folder)) if name.endswith(".point")}
            except OSError:
                pass
        points = []
        for oid in sorted(oid for oid in oids if oid.startswith(prefix)):
            # A damaged point does not hide the others.
            try:
                points.append(self.point(oid))
            except Damaged as error:
                self.damaged.append(str(error))
        return sorted(points, key=lambda p: (p["facts"]["number"], p["facts"]["facts"]["time"], p["oid"]))

    # --- section 6: pages; section 8: reading ---

    def runs_of(self, stream, number, page, pack, offset, size):
        """The stored units of a page: (first unit in the stream, ids, pack, offset, size, first in frame)."""
        units = min(PAGE_UNITS, -(-stream["length"] // self.unit) - number * PAGE_UNITS)
        problem = None
        pack, offset = self.search(*self.find(pack, offset), page, 0)
        for folder in ("packs", "copies/packs"):
            try:
                kind, ids, data = self.record("%s/%s/%s.pack" % (folder, pack[:2], pack), offset, size)
                need(kind == 2 and ids == [page] and self.id(data) == page, "a page is damaged")
                break
            except (OSError, Damaged) as error:
                problem = problem or error
        else:
            raise Damaged("a page of units is lost: %s" % problem)
        cursor, result, at = Cursor(data), [], 0
        need(cursor.varint() == units, "a page covers another number of units")
        packs = [cursor.take(16).hex() for _ in range(cursor.varint())]
        while at < units:
            word = cursor.varint()
            count = word >> 1
            need(1 <= count <= units - at, "a bad run in a page")
            if word & 1:
                where = packs[cursor.varint()], cursor.varint() * 16, cursor.varint() * 16, cursor.u8()
                ids = [cursor.take(32) for _ in range(count)]
                result.append((number * PAGE_UNITS + at, ids) + where)
            at += count
        need(cursor.done(), "a page holds more than it should")
        return result

    def restore(self, point, folder):
        disks = []
        for number, disk in enumerate(point["facts"]["facts"]["disks"]):
            disks.append(open(os.path.join(folder, "disk%d.img" % number), "wb"))
            disks[-1].truncate(disk["size"])
        for stream in point["streams"]:
            used, cursor = stream["used"], 0
            for page in stream["pages"]:
                for first, ids, pack, offset, size, index in self.runs_of(stream, *page):
                    pack, offset = self.search(*self.find(pack, offset), ids[0], index)
                    kind, stored, data = self.record("packs/%s/%s.pack" % (pack[:2], pack), offset, size)
                    need(kind == 1 and stored[index : index + len(ids)] == ids, "a frame holds other units")
                    for i, unit_id in enumerate(ids):
                        unit = data[(index + i) * self.unit : (index + i + 1) * self.unit]
                        need(self.id(unit) == unit_id, "a unit does not match its id")
                        start = (first + i) * self.unit
                        need(len(unit) == min(self.unit, stream["length"] - start), "a unit of another length")
                        while cursor < len(used) and sum(used[cursor]) <= start:
                            cursor += 1
                        at = cursor
                        need(at < len(used) and used[at][0] < start + len(unit), "a stored unit that is not used")
                        while at < len(used) and used[at][0] < start + len(unit):
                            low, high = max(used[at][0], start), min(sum(used[at]), start + len(unit))
                            disks[stream["disk"]].seek(stream["start"] + low)
                            disks[stream["disk"]].write(unit[low - start : high - start])
                            at += 1
        for disk in disks:
            disk.close()

    # --- section 5.3: footers ---

    def check_pack(self, name):
        data = self.file(name)
        need(data[:8] == b"RLGTPACK" and check(data[:60]) == struct.unpack_from("<I", data, 60)[0], "a damaged header")
        need(same_set(data[64:192], self.header) and data[16:32].hex() in name, "a pack of another set or name")
        trailer = data[-64:]
        need(trailer[:8] == b"RLGTSEAL" and check(trailer[:60]) == struct.unpack_from("<I", trailer, 60)[0], "no trailer")
        offset, length = struct.unpack_from("<QQ", trailer, 8)
        footer, at, count, heads = data[offset : offset + length], 192, 0, b""
        end_of_records = struct.unpack_from("<Q", footer, 24)[0]
        while at < end_of_records:
            kind, _, _, stored, _, size = self.head(data, at)
            need(kind == data[10], "a record of the other kind")
            heads += struct.pack("<Q", at) + data[at : at + size]
            end = (at + size + stored + 15) // 16 * 16
            need(not any(data[at + size + stored : end]), "padding that is not zero")
            at, count = end, count + 1
        hashes = [segment_hash(data[i : min(i + SEGMENT, offset)]) for i in range(0, offset, SEGMENT)]
        again = b"RLGTFOOT" + struct.pack("<III4xQ", count, len(hashes), SEGMENT, at) + heads + b"".join(hashes)
        need(at <= offset and again == footer, "the footer made again differs from the one stored")
        need(hashlib.sha256(footer).digest() == trailer[24:56], "the footer's hash is wrong")


def main(arguments):
    secret = None
    if arguments[:1] == ["--passphrase-file"] or arguments[:1] == ["--key-file"]:
        with open(arguments[1], "rb") as file:
            text = file.read()
        if arguments[0] == "--passphrase-file":
            secret = 1, text[:-2] if text.endswith(b"\r\n") else text[:-1] if text.endswith(b"\n") else text
        else:
            secret = 2, text
        arguments = arguments[2:]
    if len(arguments) < 2 or arguments[0] not in ("list", "restore", "check"):
        sys.exit(__doc__)
    image_set = Set(arguments[1], secret)
    if arguments[0] == "list":
        for point in image_set.points():
            facts = point["facts"]["facts"]
            used = sum(length for stream in point["streams"] for _, length in stream["used"])
            print(point["oid"], point["facts"]["number"], facts["name"], len(facts["disks"]), used)
        need(not image_set.damaged, "; ".join(image_set.damaged))
    elif arguments[0] == "restore":
        if arguments[2] == "latest":
            chosen = image_set.points()[-1:]
            for problem in image_set.damaged:
                print("read_set.py: not restored, and perhaps newer: %s" % problem, file=sys.stderr)
        else:
            chosen = image_set.points(arguments[2])
        need(chosen or not image_set.damaged, "; ".join(image_set.damaged))
        need(len(chosen) == 1, "not exactly one such point")
        image_set.restore(chosen[0], arguments[3])
    else:
        for folder, _, names in os.walk(arguments[1]):
            for name in names:
                if name.endswith(".pack"):
                    path = os.path.relpath(os.path.join(folder, name), arguments[1])
                    try:
                        image_set.check_pack(path)
                    except Damaged as error:
                        raise Damaged("%s: %s" % (path, error))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Damaged, OSError, IndexError, struct.error) as error:
        sys.exit("read_set.py: %s" % error)
