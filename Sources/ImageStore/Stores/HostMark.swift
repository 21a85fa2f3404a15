// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Glibc

/// 16 hexadecimal digits that stand for one running kernel: those who share them see each other's file locks.
///
/// Made from the boot id, so a machine has new ones after each start, and what it left behind before counts as another
/// machine's.
enum HostMark {
    /// The mark of this system. Where the kernel does not tell its boot id, a random one: everyone else is then
    /// another machine, which is the careful side.
    static let own: String = {
        var bytes: [UInt8] = []
        let file = unsafe Glibc.open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        if file >= 0 {
            bytes = [UInt8](repeating: 0, count: 64)
            let got = unsafe Glibc.read(file, &bytes, 64)
            close(file)
            bytes.removeLast(64 - max(0, got))
        }
        if bytes.isEmpty { bytes = ObjectID.random().bytes }
        guard let hash = try? Hasher256().hash(Array("relight host ".utf8) + bytes) else {
            return String(ObjectID.random().text.prefix(16))
        }
        return String(hash.text.prefix(16))
    }()

    static func isValid(_ text: some StringProtocol) -> Bool {
        text.utf8.count == 16 && Hex.bytes(text).map { Hex.text($0) == text } == true
    }
}
