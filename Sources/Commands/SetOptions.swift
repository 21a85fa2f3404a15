// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Blocks
import Findings
import Geometry
import Glibc
import ImageStore
import LinuxDisks
import Operations
import Synchronization
import Threads

/// Where else a set lies.
struct PlaceOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Another place the set lies in, or goes on in when the first is full (repeatable).", valueName: "place"))
    var also: [String] = []
}

/// What opens encrypted volumes of the disks named.
struct UnlockOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Look into an encrypted volume (LUKS) with its passphrase or key file, so that only what is in use of it is \
            imaged, still encrypted (repeatable). VOLUME is N, DISK:N, VG/LV, or the UUID of the encrypted volume. It then \
            shows in the image which parts of it are in use.
            """, valueName: "volume=file"))
    var unlock: [String] = []

    func unlocking() throws(Fault) -> VolumeUnlocking {
        var given: [(volume: String, secret: Secret)] = []
        for text in unlock {
            guard let sign = text.firstIndex(of: "="), sign != text.startIndex, text.index(after: sign) != text.endIndex
            else {
                throw Fault(
                    .usage, what: "\"\(text)\" is not VOLUME=FILE.",
                    remedy: "Write, for instance, --unlock 2=passphrase.txt.")
            }
            given.append((String(text[..<sign]), try SecretFile.keyFile(String(text[text.index(after: sign)...]))))
        }
        return VolumeUnlocking(given)
    }
}

/// What opens an encrypted set.
struct KeyOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The passphrase of an encrypted set: the first line of this file (a path, or label:NAME/path). Without it you are asked.",
            valueName: "file"))
    var passphraseFile: String?
    @Option(help: ArgumentHelp("The key file of an encrypted set.", valueName: "file"))
    var keyFile: String?

    func validate() throws {
        if passphraseFile != nil, keyFile != nil {
            throw ValidationError("Give a passphrase file or a key file, not both.")
        }
    }

    /// What was given on the command line.
    func given() throws(Fault) -> SetSecret? {
        try KeyOptions.read(passphraseFile: passphraseFile, keyFile: keyFile)
    }

    static func read(passphraseFile: String?, keyFile: String?) throws(Fault) -> SetSecret? {
        if let passphraseFile { return .passphrase(try SecretFile.passphrase(passphraseFile)) }
        if let keyFile { return .keyFile(try SecretFile.keyFile(keyFile)) }
        return nil
    }

    /// The secret given, or whoever sits at the terminal: three attempts.
    func ring() throws(Fault) -> KeyRing { ring(try given()) }

    /// As ``ring()``, of what ``given()`` gave.
    func ring(_ secret: SetSecret?) -> KeyRing {
        if let secret { return KeyRing(secret) }
        return KeyRing { (set, attempt) throws(Fault) in
            guard attempt <= 3, Terminal.canAsk else { return nil }
            if attempt > 1 { Terminal.say("That passphrase does not open the set. Is the keyboard layout right?") }
            return .passphrase(try Terminal.secret("Passphrase of \(set): "))
        }
    }

    /// As ``ring()``, but for a set that is made now: a new passphrase is asked for twice.
    func newRing() throws(Fault) -> KeyRing { newRing(try given()) }

    /// As ``newRing()``, of what ``given()`` gave.
    func newRing(_ secret: SetSecret?) -> KeyRing {
        if let secret { return KeyRing(secret) }
        return KeyRing { (set, attempt) throws(Fault) in
            guard attempt == 1, Terminal.canAsk else { return nil }
            return .passphrase(try Terminal.newPassphrase(for: set))
        }
    }
}

/// Secrets in files.
enum SecretFile {
    /// Largest key file.
    private static let most = 1 << 20

    /// The first line of `path`, without its end. Throws `missing`, `no-access`, `usage` when it is empty.
    static func passphrase(_ path: String) throws(Fault) -> Secret { try read(path, line: true) }

    /// All of `path`.
    static func keyFile(_ path: String) throws(Fault) -> Secret { try read(path, line: false) }

    private static func read(_ name: String, line: Bool) throws(Fault) -> Secret {
        let location = try StoreLocation.open(name, .readOnly, identify: Identify.volume)
        defer { location.release() }
        let path = location.path
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw unreadable(name, errno) }
        defer { close(file) }
        var status = stat()
        if unsafe fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o077 != 0 {
            Console.current.withLock { $0 }.receive(
                .finding(
                    Finding(
                        .notice, "key.readable", what: "Other users of this machine can read this file.", place: path)))
        }
        let (secret, problem) = Secret.read(from: file, most: most, line: line)
        guard problem == 0 else {
            if problem == E2BIG {
                throw Fault(
                    .usage, what: "A passphrase or key has at most \(most) bytes.", place: path,
                    remedy: "Use another file as key.")
            }
            throw unreadable(path, problem)
        }
        guard secret.count > 0 else {
            throw Fault(.usage, what: "The passphrase or key is empty.", place: path, remedy: "Name another file.")
        }
        return secret
    }

    private static func unreadable(_ path: String, _ problem: Int32) -> Fault {
        Fault(
            problem == ENOENT ? .missing : .noAccess, what: "The key cannot be read: \(errorText(problem)).",
            place: path,
            remedy: "Name a file that holds the passphrase or key.")
    }
}

/// Asks the person at the terminal.
enum Terminal {
    /// Whether there is one.
    static var canAsk: Bool {
        isatty(0) == 1 && isatty(2) == 1 && !Console.current.withLock { $0 }.settings.json
    }

    static func say(_ text: String) { Console.current.withLock { $0 }.errorLine(text) }

    /// A line typed without being shown. Throws `interrupted`, `usage` when it is empty.
    static func secret(_ prompt: String) throws(Fault) -> Secret {
        Console.current.withLock { $0 }.prompt(prompt)
        var old = termios()
        guard unsafe tcgetattr(0, &old) == 0 else { throw nobody }
        var quiet = old
        quiet.c_lflag &= ~tcflag_t(ECHO)
        quiet.c_lflag |= tcflag_t(ICANON)
        unsafe tcsetattr(0, TCSAFLUSH, &quiet)
        defer {
            unsafe tcsetattr(0, TCSAFLUSH, &old)
            say("")
        }
        let (secret, _) = Secret.read(from: 0, most: 1024, line: true)
        try Interruption.check()
        guard secret.count > 0 else {
            throw Fault(.usage, what: "The passphrase is empty.", remedy: "Start again, and type it.")
        }
        return secret
    }

    /// A line typed as the answer to `question`; `nil` at the end of input. Throws `interrupted` on Ctrl+C.
    ///
    /// The library's own `readLine` reads on for ever once a signal came.
    static func line(_ question: String) throws(Fault) -> String? {
        say(question)
        var bytes: [UInt8] = []
        while true {
            try Interruption.check()
            var byte: UInt8 = 0
            let got = unsafe read(0, &byte, 1)
            if got < 0 && errno == EINTR { continue }
            if got <= 0 { return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self) }
            if byte == UInt8(ascii: "\n") { return String(decoding: bytes, as: UTF8.self) }
            if bytes.count < 4096 { bytes.append(byte) }
        }
    }

    /// A new passphrase, typed twice. Throws `usage` when the two differ.
    static func newPassphrase(for set: String) throws(Fault) -> Secret {
        say("Without the passphrase nobody can open the set again, and nobody can make a new one for it.")
        let first = try secret("New passphrase for \(set): ")
        let second = try secret("The same once more: ")
        guard Secret.equal(first, second) else {
            throw Fault(
                .usage, what: "The two passphrases differ.", remedy: "No set was made. Start again, and type it twice."
            )
        }
        return first
    }

    private static var nobody: Fault {
        Fault(
            .keyNeeded, what: "Nobody can be asked for the passphrase.",
            remedy: "Add --passphrase-file FILE or --key-file FILE.")
    }
}

/// Words of options that make or fill a set.
enum SetWords {
    static func compression(_ level: String) throws(Fault) -> Compression {
        guard let compression = Compression(parsing: level) else {
            throw Fault(
                .usage, what: "\"\(level)\" is no compression level.",
                remedy: "Use fast, default, best, off, or 1 … 19.")
        }
        return compression
    }

    static func parity(_ percent: Int) throws(Fault) -> Int {
        guard (0...50).contains(percent) else {
            throw Fault(
                .usage, what: "\(percent) percent of parity is not possible.", remedy: "Use 1 … 50, such as 5.")
        }
        return percent
    }

    static func unitSize(_ text: String) throws(Fault) -> ByteCount {
        guard let size = SizeText.parse(text), size == .kibibytes(64) || size == .kibibytes(16) else {
            throw Fault(.usage, what: "\"\(text)\" is no unit size.", remedy: "Use 64K or 16K.")
        }
        return size
    }

    static func packSize(_ text: String) throws(Fault) -> ByteCount {
        guard let size = SizeText.parse(text), size >= .mebibytes(1), size.bytes <= 0xFFFF_FFFF else {
            throw Fault(.usage, what: "\"\(text)\" is no pack size.", remedy: "Use 1M … 4095M, such as 256M.")
        }
        return size
    }
}
