// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// relight-bench: whole commands of Relight and of its peers on the same data, in interleaved rounds, as ratios.
//
// Wall time and CPU time (user + system of the command and its children) are medians over the rounds. Absolute figures
// of one machine say little about another; the ratios are the result.

import Findings
import Geometry
import Glibc
import Tools

/// A command to be timed, run by `/bin/sh` because peers are pipelines.
struct Contender {
    let name: String
    let prepare: String
    let command: String
}

struct Sample {
    var wall: Double
    var cpu: Double
}

func now(_ clock: clockid_t) -> Double {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func childrenCPU() -> Double {
    var usage = rusage()
    unsafe getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

let shell = Tool("/bin/bash", package: "bash")

@discardableResult
func run(_ command: String) throws(Fault) -> ToolOutput {
    try shell.check(["-o", "pipefail", "-c", command], seconds: 3600)
}

func time(_ contender: Contender) throws(Fault) -> Sample {
    if !contender.prepare.isEmpty { try run(contender.prepare) }
    let (wall, cpu) = (now(CLOCK_MONOTONIC), childrenCPU())
    try run(contender.command)
    return Sample(wall: now(CLOCK_MONOTONIC) - wall, cpu: childrenCPU() - cpu)
}

func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

func fixed(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
}

func pad(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(1, width - text.count)) }

/// Runs the contenders in turn for `rounds` rounds and prints medians and the ratio of the first to each other.
func compare(_ title: String, _ contenders: [Contender], rounds: Int) throws(Fault) {
    var samples = [[Sample]](repeating: [], count: contenders.count)
    for round in 0..<rounds {
        for index in contenders.indices {
            samples[index].append(try time(contenders[index]))
            let last = samples[index][round]
            print(
                "  round \(round + 1): \(pad(contenders[index].name, 34)) \(fixed(last.wall)) s wall, \(fixed(last.cpu)) s CPU"
            )
        }
    }
    print("\n\(title) (median of \(rounds) interleaved rounds)")
    print("  " + pad("", 34) + pad("wall s", 10) + pad("CPU s", 10) + "Relight / this: wall, CPU")
    let own = (median(samples[0].map(\.wall)), median(samples[0].map(\.cpu)))
    for index in contenders.indices {
        let (wall, cpu) = (median(samples[index].map(\.wall)), median(samples[index].map(\.cpu)))
        let ratio = index == 0 ? "" : "\(fixed(own.0 / wall)), \(fixed(own.1 / cpu))"
        print("  " + pad(contenders[index].name, 34) + pad(fixed(wall), 10) + pad(fixed(cpu), 10) + ratio)
    }
    print("")
}

func size(_ command: String) throws(Fault) -> Int {
    Int(try run(command).standardOutput.split(separator: "\n").last.map(String.init) ?? "") ?? 0
}

do {
    let arguments = CommandLine.arguments
    guard arguments.count >= 3 else {
        print("usage: relight-bench RELIGHT WORK-FOLDER [ROUNDS]")
        exit(2)
    }
    let (relight, work) = (arguments[1], arguments[2])
    let rounds = arguments.count > 3 ? Int(arguments[3]) ?? 3 : 3
    try run("mkdir -p '\(work)'")
    let image = "\(work)/source.img"
    if unsafe access(image, R_OK) != 0 {
        print("Making a 4 GiB ext4 with about 2 GiB of this machine's own programs and libraries…")
        try run(
            """
            rm -rf '\(work)/tree' && mkdir '\(work)/tree'
            left=$((2048 * 1024))
            for dir in /usr/bin /usr/lib/x86_64-linux-gnu /usr/share /usr/lib /usr/include /usr/sbin /opt; do
              [ -d "$dir" ] || continue
              find "$dir" -xdev -type f -size -64M -print0 | sort -z | while IFS= read -r -d '' file; do printf '%s\\0' "$file"; done
            done | xargs -0 -n 200 du -k --apparent-size | awk -v left=$left '{ if ((left -= $1) < 0) exit; sub(/^[0-9]+\\t/, ""); print }' > '\(work)/list' || true
            cpio -pdm --quiet '\(work)/tree' < '\(work)/list' || true
            rm -f '\(image).new' && mke2fs -q -t ext4 -d '\(work)/tree' '\(image).new' 4G && mv '\(image).new' '\(image)'
            rm -rf '\(work)/tree' '\(work)/list'
            """)
    }
    let used = try size(
        "dumpe2fs -h '\(image)' 2>/dev/null | awk -F: '/^Block count/{b=$2}/^Free blocks/{f=$2}/^Block size/{s=$2}END{printf \"%d\\n\", (b-f)*s}'"
    )
    print("Source: \(image), \(ByteCount(UInt64(used))) used. Both contenders read it from the page cache.\n")

    let warm = "sync; cat '\(image)' > /dev/null"
    let set = "\(work)/set.rlset"
    let peer = "\(work)/peer.zst"
    try compare(
        "Backup",
        [
            Contender(
                name: "relight backup (zstd level 1)", prepare: "rm -rf '\(set)'; \(warm)",
                command: "'\(relight)' --quiet backup '\(image)' --to '\(set)' --level default --no-verify"),
            Contender(
                name: "partclone.ext4 | zstd -1 -T2", prepare: "rm -f '\(peer)'; \(warm)",
                command:
                    "partclone.ext4 -c -s '\(image)' -o - 2>/dev/null | zstd -q -1 -T2 -o '\(peer)' && sync '\(peer)'"),
        ], rounds: rounds)
    let (own, other) = (try size("du -sb '\(set)' | cut -f1"), try size("stat -c %s '\(peer)'"))
    print(
        "  size: relight \(ByteCount(UInt64(own))), partclone + zstd \(ByteCount(UInt64(other))), ratio \(fixed(Double(own) / Double(max(1, other))))\n"
    )

    let target = "\(work)/target.img"
    try compare(
        "Restore",
        [
            Contender(
                name: "relight restore, no read-back",
                prepare:
                    "rm -f '\(target)'; truncate -s 4G '\(target)'; cat '\(set)'/*/* '\(set)'/*/*/* > /dev/null 2>&1 || true",
                command: "'\(relight)' --quiet restore '\(set)' --to '\(target)' --yes --read-back off > /dev/null"),
            Contender(
                name: "zstd -d | partclone.restore",
                prepare: "rm -f '\(target)'; truncate -s 4G '\(target)'; cat '\(peer)' > /dev/null",
                command:
                    "zstd -q -dc '\(peer)' | partclone.restore -C -s - -O '\(target)' 2>/dev/null && sync '\(target)'"),
        ], rounds: rounds)
    try compare(
        "Restore with full read-back, and verify",
        [
            Contender(
                name: "relight restore", prepare: "rm -f '\(target)'; truncate -s 4G '\(target)'",
                command: "'\(relight)' --quiet restore '\(set)' --to '\(target)' --yes > /dev/null"),
            Contender(name: "relight verify", prepare: "", command: "'\(relight)' --quiet verify '\(set)' > /dev/null"),
            Contender(
                name: "zstd -d | partclone.chkimg", prepare: "",
                command: "zstd -q -dc '\(peer)' | partclone.chkimg -L /dev/null -s - 2>/dev/null"),
        ], rounds: rounds)
    try run("e2fsck -fn '\(target)' > /dev/null 2>&1")
    print("The restored filesystem passes e2fsck -fn.")
} catch {
    print("relight-bench: \(error)")
    exit(1)
}
