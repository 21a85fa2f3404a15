#!/usr/bin/env python3
# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what another reader sees in a registry hive, a line for each key and value.

    dump_hive.py hivex HIVE OUT             libhivex (Debian package python3-hivex): all names, types, data and times
    dump_hive.py regipy HIVE OUT            regipy (from PyPI): keys with times and classes, values with types it knows
    dump_hive.py regipy HIVE OUT LOG [LOG2] the same after regipy has applied the logs

Lines, their fields separated by tabs; a path has no root and begins with a backslash; in names bytes below 32, % and
backslash are written as %XX; data are hexadecimal, or CRC-32 where there are more than 64 bytes:

    K PATH TICKS [CLASS]
    V PATH NAME TYPE LENGTH DATA
"""
import sys
import tempfile
import zlib


def name(text):
    return "".join("%%%02X" % ord(c) if ord(c) < 32 or c in "%\\" else c for c in text)


def data(content):
    return content.hex() if len(content) <= 64 else "%08x" % zlib.crc32(content)


def with_hivex(path, out):
    import hivex

    hive = hivex.Hivex(path)

    def walk(node, where):
        out.write("K\t%s\t%d\n" % (where or "\\", hive.node_timestamp(node) & (1 << 64) - 1))
        for value in hive.node_values(node):
            kind, content = hive.value_value(value)
            fields = (where or "\\", name(hive.value_key(value)), kind & 0xFFFFFFFF, len(content), data(content))
            out.write("V\t%s\t%s\t%d\t%d\t%s\n" % fields)
        for child in hive.node_children(node):
            walk(child, where + "\\" + name(hive.node_name(child)))

    walk(hive.root(), "")


def with_regipy(path, out, logs):
    import logging

    from regipy.recovery import apply_transaction_logs
    from regipy.registry import RegistryHive

    logging.disable(logging.CRITICAL)
    scratch = tempfile.NamedTemporaryFile()
    if logs:
        apply_transaction_logs(path, logs[0], logs[1] if len(logs) > 1 else None, restored_hive_path=scratch.name)
        path = scratch.name
    hive = RegistryHive(path)
    numbers = {"REG_BINARY": 3, "REG_DWORD": 4, "REG_QWORD": 11}

    def walk(key, where):
        kind = key.get_class_name() if key.header.class_name_size else ""
        out.write("K\t%s\t%d\t%s\n" % (where or "\\", key.header.last_modified, kind))
        for value in key.iter_values(trim_values=False):
            if value.value_type not in numbers:
                continue
            content = value.value
            if not isinstance(content, bytes):
                content = content.to_bytes(4 if value.value_type == "REG_DWORD" else 8, "little")
            title = "" if value.name == "(default)" else name(value.name)
            fields = (where or "\\", title, numbers[value.value_type], len(content), data(content))
            out.write("V\t%s\t%s\t%d\t%d\t%s\n" % fields)
        for child in key.iter_subkeys() or ():
            walk(child, where + "\\" + name(child.name))

    walk(hive.root, "")


def main(arguments):
    sys.setrecursionlimit(5000)
    with open(arguments[2], "w", encoding="utf-8") as out:
        if arguments[0] == "hivex":
            with_hivex(arguments[1], out)
        else:
            with_regipy(arguments[1], out, arguments[3:])


main(sys.argv[1:])
