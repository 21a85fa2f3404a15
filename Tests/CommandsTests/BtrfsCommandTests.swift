// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Testing
import Tools

private let isPossible: Bool = {
    guard Program.path != nil, Samples.areLoopsAvailable, Tool("mkfs.btrfs", package: "").path != nil,
        let scratch = try? Scratch()
    else { return false }
    return
        (try? scratch.sh(
            "truncate -s 128M p; mkfs.btrfs -q p; mkdir m; mount -o loop p m; umount m")) != nil
}()

/// A Btrfs over two disks, from `relight backup` to a restore of both onto garbage; `btrfs check` judges.
@Suite(.serialized, .enabled(if: isPossible, "needs the built program, root, loop devices, btrfs-progs and Btrfs"))
struct BtrfsCommandTests {
    @Test(arguments: ["raid1", "raid0"])
    func bothDisksComeBack(profile: String) throws {
        let scratch = try Scratch()
        let helpers = """
            attach() { a=$(losetup -f --show $1); b=$(losetup -f --show $2); trap 'losetup -d $a $b' EXIT
              btrfs device scan $a $b >/dev/null; }
            mounted() { mount -t btrfs -o noatime $a mnt; ( set -e; eval "$1" ) || { umount mnt; exit 1; }
              umount mnt; for n in $(seq 1 60); do btrfs device scan -u $a $b >/dev/null 2>&1 && return; sleep 0.25; done; exit 1; }

            """
        try scratch.sh(
            helpers + """
                mkdir -p tree/sub mnt; for n in $(seq 1 60); do head -c $((n * 9000)) /dev/urandom > tree/sub/f$n; done
                ln -s sub/f1 tree/link; ln tree/sub/f2 tree/hard; mkfifo tree/pipe; chmod 4711 tree/sub/f3; chown 7:8 tree/sub/f4
                truncate -s 400M a.img; truncate -s 350M b.img
                a=$(losetup -f --show a.img); b=$(losetup -f --show b.img); trap 'losetup -d $a $b' EXIT
                mkfs.btrfs -q -m $1 -d $1 $a $b; btrfs device scan $a $b >/dev/null
                mounted 'cp -a tree mnt/keep; setfattr -n user.x -v y mnt/keep/sub/f5; cp -a tree mnt/gone; sync
                  rm -r mnt/gone; sync'
                """, [profile])
        let (a, b, set) = ("\(scratch.path)/a.img", "\(scratch.path)/b.img", "\(scratch.path)/set")
        let before = [try sha256(a), try sha256(b)]
        let shown = try Program.run("disks", a, b)
        #expect(shown.out.contains("Btrfs (") && !shown.out.contains("imaged whole"), "\(shown.out)")
        let backup = try Program.run("--json", "backup", a, b, "--to", set, "--level", "off")
        try #require(backup.status == 0, "\(backup.err)")
        // 16 MB of files, twice with RAID1; what is the same on both is stored once.
        #expect(try #require(backup.document().stored) < 40 << 20)
        #expect([try sha256(a), try sha256(b)] == before, "the backup changed its source")
        try scratch.sh(
            """
            head -c 400M /dev/zero | tr '\\0' '\\377' > ta.img; head -c 350M /dev/zero | tr '\\0' '\\377' > tb.img
            """)
        let restore = try Program.run(
            "restore", set, "--to", "\(scratch.path)/ta.img=1", "--to", "\(scratch.path)/tb.img=2", "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        try scratch.sh(
            helpers + """
                list() { (cd $1; find . -printf '%P %y %m %U %G %n %s %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum
                  getfattr -R -d . 2>/dev/null || true); }
                attach ta.img tb.img; btrfs check --readonly --check-data-csum $a; mounted 'list mnt/keep > restored'
                losetup -d $a $b; attach a.img b.img; mounted 'list mnt/keep > source'; cmp source restored
                """)
    }
}
