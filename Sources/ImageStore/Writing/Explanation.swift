// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

extension SetWriter {
    /// What people find when they open the folder: `RELIGHT.txt`.
    static func explanation(_ set: SetHeader) -> [UInt8] {
        Array(
            """
            This folder is a Relight image set: images of the disks of one or more computers.
            Do not rename, change or delete anything in it; copy it as a whole.

              relight points FOLDER              lists the recovery points in it
              relight verify FOLDER              reads everything back and checks it
              relight restore FOLDER --to DISK   brings a computer back

            set.a, set.b   what the set is (two equal copies)
            packs/         the disks' contents, compressed, each piece named by a hash of it
            points/        one file for each recovery point: what was where at one time
            keys/          what the passphrase or key file opens, in an encrypted set
            copies/        second copies of everything that is small and needed
            moves/, gone/  what `relight prune` moved, and what it is about to remove
            writers/       who is working on the set
            catalogue      a list of all this, for places that cannot list what they hold
            logs/          logs of jobs
            tmp/           unfinished files of a backup that runs or was interrupted; may be deleted when none runs

            The set is \(set.isEncrypted ? "encrypted: without its passphrase or key file nobody can read it" : "not encrypted").
            Its format is version \(SetHeader.version), described in docs/image-format.md of Relight's source, exactly enough to
            write another program that reads it.

            """.utf8)
    }
}
