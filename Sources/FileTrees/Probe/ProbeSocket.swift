// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc

/// One end of the socket between parent and child. Sends and receives whole frames.
struct ProbeSocket {
    let descriptor: Int32

    /// Why a frame did not come or go.
    enum Problem: Error {
        /// The other side closed its end, or is gone.
        case ended
        /// Nothing moved before the deadline.
        case late
        /// What came is no frame, or not one that may come.
        case nonsense
        /// `goOn` threw.
        case fault(Fault)
    }

    /// Seconds of a clock that only goes forward.
    static func now() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Sends a frame. `deadline` by ``now()``; `goOn` is asked while waiting.
    func send(_ frame: [UInt8], deadline: Double, _ goOn: () throws(Fault) -> Void) throws(Problem) {
        var done = 0
        while done < frame.count {
            try wait(Int16(POLLOUT), deadline, goOn)
            let sent = unsafe frame.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return 0 }
                return unsafe Glibc.send(
                    descriptor, base + done, bytes.count - done, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            }
            if sent > 0 {
                done += sent
            } else if errno != EAGAIN && errno != EINTR {
                throw .ended
            }
        }
    }

    /// Receives a frame's bytes, without the length.
    func receive(deadline: Double, _ goOn: () throws(Fault) -> Void) throws(Problem) -> [UInt8] {
        let head = try take(4, deadline, goOn)
        let count = head.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard count > 0, count <= ProbeWord.mostBytes else { throw .nonsense }
        return try take(count, deadline, goOn)
    }

    private func take(_ count: Int, _ deadline: Double, _ goOn: () throws(Fault) -> Void) throws(Problem) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            try wait(Int16(POLLIN), deadline, goOn)
            let got = unsafe result.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return 0 }
                return unsafe recv(descriptor, base + done, bytes.count - done, Int32(MSG_DONTWAIT))
            }
            if got > 0 {
                done += got
            } else if got == 0 || (errno != EAGAIN && errno != EINTR) {
                throw .ended
            }
        }
        return result
    }

    private func wait(_ events: Int16, _ deadline: Double, _ goOn: () throws(Fault) -> Void) throws(Problem) {
        while true {
            var polls = [pollfd(fd: descriptor, events: events, revents: 0)]
            if unsafe poll(&polls, 1, 200) > 0 { return }
            do throws(Fault) { try goOn() } catch { throw .fault(error) }
            if ProbeSocket.now() > deadline { throw .late }
        }
    }
}
