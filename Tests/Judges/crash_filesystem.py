#!/usr/bin/env python3
# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Works on a mounted filesystem and then cuts its power, and checks what must have survived.

    crash_filesystem.py work MOUNTPOINT MANIFEST SEED
    crash_filesystem.py check MOUNTPOINT MANIFEST

`work` creates, changes, moves and removes files while a second thread does the same in a folder of its own, and syncs
some files with their folders. At a moment that the seed chooses it stops the filesystem by FS_IOC_SHUTDOWN: what has
not reached the disk by then never will, as when the power fails. MANIFEST lists what was synced and not touched after
that, so that it must be there: path and SHA-256. It is kept from turn to turn. `check` compares a filesystem with it.
"""
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import random
import struct
import sys
import threading
import time

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
FLUSH_LOG, DROP_LOG = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def digest(path):
    if os.path.islink(path):
        return "link " + os.readlink(path)
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Worker:
    """Random operations below one folder."""

    def __init__(self, root, seed, manifest):
        self.root = root
        self.random = random.Random(seed)
        self.manifest = manifest
        self.number = 0
        os.makedirs(root, exist_ok=True)

    def files(self):
        return [os.path.join(folder, name) for folder, _, names in os.walk(self.root) for name in names]

    def size(self):
        return self.random.choice([0, 30, 100, 3000, 5000, 20_000, 70_000, 300_000, 1_500_000])

    def content(self, size):
        return self.random.randbytes(size)

    def promise(self, path):
        """Syncs `path` and its folders; from now on it must be there."""
        if os.path.islink(path):
            return
        sync(path)
        folder = os.path.dirname(path)
        while len(folder) >= len(self.root):
            sync(folder)
            folder = os.path.dirname(folder)
        self.manifest[path] = digest(path)

    def step(self):
        files = self.files()
        choice = self.random.random()
        if choice < 0.45 or len(files) < 5:
            folder = os.path.join(self.root, *[f"d{self.random.randrange(4)}" for _ in range(self.random.randrange(3))])
            os.makedirs(folder, exist_ok=True)
            self.number += 1
            path = os.path.join(folder, f"f{self.number}-{self.random.getrandbits(32):08x}")
            if self.random.random() < 0.1:
                os.symlink("x" * self.random.choice([5, 59, 60, 200]), path)
            else:
                with open(path, "wb") as file:
                    file.write(self.content(self.size()))
        else:
            path = self.random.choice(files)
            self.manifest.pop(path, None)
            if choice < 0.70:
                os.unlink(path)
                return
            if choice < 0.78:
                target = path + "r"
                os.rename(path, target)
                path = target
            elif not os.path.islink(path):
                with open(path, "r+b") as file:
                    length = os.fstat(file.fileno()).st_size
                    if choice < 0.84:
                        file.truncate(self.random.randrange(length + 1))
                    elif choice < 0.90:
                        file.seek(0, 2)
                        file.write(self.content(self.size()))
                    elif choice < 0.95:
                        file.seek(self.random.randrange(length + 200_000))
                        file.write(self.content(self.size()))
                    else:
                        # A hole: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
                        libc.fallocate(
                            file.fileno(), 3, ctypes.c_long(length // 3), ctypes.c_long(max(1, length // 3)))
                    if self.random.random() < 0.3:
                        try:
                            os.setxattr(path, "user.note", self.content(self.random.choice([10, 300, 2000])))
                        except OSError:
                            pass
        if self.random.random() < 0.35:
            self.promise(path)
        elif self.random.random() < 0.02:
            os.sync()

    def step_or_make_room(self):
        try:
            self.step()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            for path in self.files()[::2]:
                self.manifest.pop(path, None)
                os.unlink(path)


def work(mountpoint, manifest_path, seed):
    generator = random.Random(seed)
    manifest = json.load(open(manifest_path)) if os.path.exists(manifest_path) else {}
    manifest = {os.path.join(mountpoint, path): value for path, value in manifest.items()}
    mine = Worker(os.path.join(mountpoint, "a"), seed, manifest)
    other = Worker(os.path.join(mountpoint, "b"), seed + 1, {})
    ended = threading.Event()

    def churn():
        try:
            while not ended.is_set():
                other.step_or_make_room()
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EROFS, errno.ESTALE, errno.EUCLEAN):
                raise

    thread = threading.Thread(target=churn)
    thread.start()
    until = time.monotonic() + generator.uniform(0.1, 1.5)
    descriptor = os.open(mountpoint, os.O_RDONLY)
    steps = 0
    try:
        # On a busy machine a turn takes longer, but is not empty.
        while time.monotonic() < until or steps < 30:
            try:
                mine.step_or_make_room()
            except OSError as error:
                # Where the device below failed to read, the power is cut here, then.
                if error.errno != errno.EIO:
                    raise
                break
            steps += 1
        kind = DROP_LOG if generator.random() < 0.8 else FLUSH_LOG
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", kind))
    finally:
        ended.set()
        thread.join()
        os.close(descriptor)
    manifest = {os.path.relpath(path, mountpoint): value for path, value in manifest.items()}
    json.dump(manifest, open(manifest_path, "w"))
    print(f"{steps} steps, {len(manifest)} files promised")


def check(mountpoint, manifest_path):
    manifest = json.load(open(manifest_path))
    wrong = 0
    for path, value in manifest.items():
        full = os.path.join(mountpoint, path)
        try:
            seen = digest(full)
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            seen = str(error)
        if seen != value:
            print(f"{path}: {seen}, promised {value}")
            wrong += 1
    # Everything else must at least be readable.
    for folder, _, names in os.walk(mountpoint):
        for name in names:
            digest(os.path.join(folder, name))
    print(f"{len(manifest)} files compared, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        try:
            sys.exit(check(sys.argv[2], sys.argv[3]))
        except OSError as error:
            # Not the filesystem's fault, but that of the device it lies on: worth another try.
            print(error)
            sys.exit(3 if error.errno == errno.EIO else 1)
