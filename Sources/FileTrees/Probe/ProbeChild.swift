// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import CLinux
import Findings
import Geometry
import Glibc
import Synchronization

/// The child's side: reads one volume's files for its parent, without rights and within limits.
public enum ProbeChild {
    /// The word that makes the program one.
    public static let verb = "internal-probe"

    static let isServed = Mutex(false)

    /// Called at a program's very beginning with its words: where they ask for it, this process reads files for its parent
    /// and does not return. From then on ``ProbeHost/standard`` may run children of this program.
    public static func serveIfAsked(_ words: [String]) {
        if words.count == 2, words[1] == verb { serve() }
        isServed.withLock { $0 = true }
    }

    private static func serve() -> Never {
        let parent = ProbeSocket(descriptor: 0)
        _ = relight_no_core_dumps()
        // The parent ends this process when it has heard nothing for long; the processor's time is bounded besides.
        _ = relight_limit_processor_time(120)
        var tree: (any FileTree)?
        do throws(ProbeSocket.Problem) {
            while true {
                var request = WireReader(try parent.receive(deadline: .infinity, goOn))
                var answer = WireWriter(ProbeWord.result)
                do throws(ProbeSocket.Problem) {
                    let word = try request.byte()
                    if word == ProbeWord.open {
                        tree = try open(&request, parent)
                    } else if let tree {
                        try fulfil(word, &request, tree, &answer)
                    } else {
                        throw .nonsense
                    }
                } catch {
                    guard case .fault(let fault) = error else { throw error }
                    answer = WireWriter(ProbeWord.fault)
                    answer.fault(fault)
                }
                try parent.send(answer.frame, deadline: .infinity, goOn)
            }
        } catch {
            if case .ended = error { Glibc.exit(0) }
            Glibc.exit(3)
        }
    }

    private static func goOn() throws(Fault) {}

    private static func open(
        _ request: inout WireReader, _ parent: ProbeSocket
    ) throws(ProbeSocket.Problem) -> any FileTree {
        let length = try request.number(UInt64.self)
        let sector = try request.number(UInt32.self)
        let memory = try request.number(UInt64.self)
        let name = try request.text()
        let format = TreeFormat(rawValue: try request.text())
        let kind = try request.text()
        let device = try request.text()
        _ = relight_limit_memory(memory)
        do throws(Fault) {
            // The kernel's readers need the right to mount; what is in a mounted tree the kernel has checked.
            if format == .mounted { return try FolderTree(device: device, kind: kind, name: name) }
            let dropped = relight_drop_rights()
            guard dropped == 0 else {
                throw Fault(
                    .system, what: "Rights could not be given up.", place: name, remedy: "Run relight as root.")
            }
            let source = RemoteSource(parent, name: name, length: ByteCount(length), SectorSize(sector) ?? .s512)
            switch format {
            case .ext: return try ExtFileTree(source)
            case .ntfs: return try NTFSFileTree(source)
            default: return try FATFileTree(source)
            }
        } catch {
            throw .fault(error)
        }
    }

    private static func fulfil(
        _ word: UInt8, _ request: inout WireReader, _ tree: any FileTree, _ answer: inout WireWriter
    ) throws(ProbeSocket.Problem) {
        let path = try request.path()
        do throws(Fault) {
            switch word {
            case ProbeWord.step:
                switch try tree.step(path) {
                case .found(let entry):
                    answer.byte(0)
                    answer.entry(entry)
                case .link(let depth, let target):
                    answer.byte(1)
                    answer.number(UInt32(clamping: depth))
                    answer.text(target)
                case .missing: answer.byte(2)
                }
                return
            case ProbeWord.streams:
                let streams = try tree.streams(path)
                answer.number(UInt32(clamping: streams.count))
                for stream in streams {
                    answer.text(stream.name)
                    answer.number(stream.size)
                }
                return
            default: break
            }
        } catch {
            throw .fault(error)
        }
        if word == ProbeWord.list {
            let most = try request.number(UInt32.self)
            let entries: [TreeEntry]
            do throws(Fault) { entries = try tree.list(path, most: Int(most)) } catch { throw .fault(error) }
            answer.number(UInt32(clamping: entries.count))
            for entry in entries { answer.entry(entry) }
        } else if word == ProbeWord.read {
            let hasStream = try request.byte() != 0
            let stream = try request.text()
            let offset = try request.number(UInt64.self)
            let count = try request.number(UInt32.self)
            do throws(Fault) {
                answer.rest(try tree.read(path, stream: hasStream ? stream : nil, from: offset, count: Int(count)))
            } catch {
                throw .fault(error)
            }
        } else {
            throw .nonsense
        }
    }
}

/// A volume whose bytes the parent hands over. What was read last is kept, for libraries read the same few blocks again and
/// again, a kilobyte at a time.
private final class RemoteSource: BlockSource, @unchecked Sendable {
    let name: String
    let length: ByteCount
    let sectorSize: SectorSize
    var file: FileWindow? { nil }
    /// Used by one thread: the child has no other.
    private let parent: ProbeSocket
    private var pages: [UInt64: [UInt8]] = [:]

    private static let page: UInt64 = 16 << 10
    /// Pages kept: 16 MiB.
    private static let most = 1024

    init(_ parent: ProbeSocket, name: String, length: ByteCount, _ sectorSize: SectorSize) {
        self.parent = parent
        self.name = name
        self.length = length
        self.sectorSize = sectorSize
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        var done = 0
        while done < buffer.byteCount {
            let place = offset.bytes + UInt64(done)
            let rest = buffer.byteCount - done
            let number = place / RemoteSource.page
            var part: [UInt8]
            if rest >= Int(RemoteSource.page) {
                part = try fetch(place, min(rest, ProbeWord.mostBlock))
            } else if let page = page(number) {
                part = Array(page.dropFirst(Int(place % RemoteSource.page)).prefix(rest))
            } else {
                // Of a page that cannot be read, what is wanted may be sound.
                part = try fetch(place, min(rest, Int(RemoteSource.page - place % RemoteSource.page)))
            }
            guard !part.isEmpty else { throw unreadable(place) }
            for byte in part {
                unsafe buffer.storeBytes(of: byte, toUncheckedByteOffset: done, as: UInt8.self)
                done += 1
            }
        }
    }

    private func page(_ number: UInt64) -> [UInt8]? {
        if let known = pages[number] { return known.isEmpty ? nil : known }
        let start = number * RemoteSource.page
        guard start < length.bytes else { return nil }
        let bytes = (try? fetch(start, Int(min(RemoteSource.page, length.bytes - start)))) ?? []
        if pages.count >= RemoteSource.most { pages.removeAll(keepingCapacity: true) }
        pages[number] = bytes
        return bytes.isEmpty ? nil : bytes
    }

    private func fetch(_ offset: UInt64, _ count: Int) throws(Fault) -> [UInt8] {
        var request = WireWriter(ProbeWord.want)
        request.number(offset)
        request.number(UInt32(count))
        let bytes: [UInt8]
        do throws(ProbeSocket.Problem) {
            try parent.send(request.frame, deadline: .infinity, { () throws(Fault) in })
            var answer = WireReader(try parent.receive(deadline: .infinity, { () throws(Fault) in }))
            guard try answer.byte() == ProbeWord.block else { throw .nonsense }
            bytes = try answer.byte() == 1 ? answer.rest() : []
        } catch {
            // A parent that is gone wants no answer.
            Glibc.exit(0)
        }
        guard bytes.count == count else { throw unreadable(offset) }
        return bytes
    }

    private func unreadable(_ offset: UInt64) -> Fault {
        Fault(.unreadable, what: "Reading at byte \(offset) failed.", place: name, remedy: "The disk may be failing.")
    }
}
