//! Where the store lies: the disk's free space, and the file system.

use super::Patient;
use super::finding::Findings;
use crate::cli::units::size;

/// With less than this the disk counts as full.
const NOTHING: u64 = 1 << 20;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    space(patient, findings);
    #[cfg(target_os = "linux")]
    linux::check(patient, findings);
}

/// What the store may need at once beside what it has: another active segment, the reserve if it is
/// gone, and the output of a merge.
fn needed_bytes(patient: &Patient<'_>) -> u64 {
    let segment = patient.segment_size();
    let has_reserve = patient.files.iter().any(|file| file.name == "RESERVE");
    let reserve = if has_reserve { 0 } else { segment / 16 };
    2 * segment + reserve
}

fn space(patient: &Patient<'_>, findings: &mut Findings) {
    const CHECK: &str = "free space";
    let free = match fs2::available_space(patient.dir) {
        Ok(free) => free,
        Err(error) => {
            findings.warn(CHECK, format!("cannot be read: {error}"), "");
            return;
        }
    };
    let needed = needed_bytes(patient);
    let message = format!(
        "{} free; the next segment and a merge may take {}",
        size(free),
        size(needed)
    );
    let advice = "make room on the disk; deletes and compact work with less";
    if free < NOTHING {
        findings.fail(CHECK, message, advice);
    } else if free < needed {
        findings.warn(CHECK, message, advice);
    } else {
        findings.ok(CHECK, message);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::{Path, PathBuf};

    use super::super::Patient;
    use super::super::finding::Findings;

    const CHECK: &str = "file system";

    /// A line of `/proc/self/mountinfo`.
    #[derive(Debug, PartialEq, Eq)]
    struct Mount {
        point: PathBuf,
        kind: String,
        /// Of the mount, then of the file system.
        options: Vec<String>,
    }

    pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
        let found = fs::read("/proc/self/mountinfo").and_then(|mounts| {
            let dir = fs::canonicalize(patient.dir)?;
            Ok(mount_of(&mounts, &dir))
        });
        match found {
            Ok(Some(mount)) => judge(&mount, findings),
            Ok(None) => findings.warn(CHECK, "no mount point is known to hold the directory", ""),
            Err(error) => findings.warn(CHECK, format!("cannot be read: {error}"), ""),
        }
    }

    /// The mount that a path lies on: the longest, and the last of those at one point, which hides
    /// the others.
    fn mount_of(mounts: &[u8], path: &Path) -> Option<Mount> {
        let lines = mounts.split(|byte| *byte == b'\n');
        let holds = |mount: &Mount| path.starts_with(&mount.point);
        lines
            .filter_map(parse)
            .filter(holds)
            .max_by_key(|mount| mount.point.components().count())
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut words = line.split(|byte| *byte == b' ');
        let point = unescape(words.nth(4)?);
        let own = words.next()?;
        // Optional fields, up to a dash.
        let mut words = words.skip_while(|word| *word != b"-").skip(1);
        let kind = String::from_utf8_lossy(words.next()?).into_owned();
        let of_file_system = words.nth(1).unwrap_or_default();
        let options = [own, of_file_system]
            .into_iter()
            .flat_map(|options| options.split(|byte| *byte == b','))
            .map(|option| String::from_utf8_lossy(option).into_owned())
            .collect();
        Some(Mount {
            point: PathBuf::from(std::ffi::OsString::from_vec(point)),
            kind,
            options,
        })
    }

    /// A space is `\040` there, and so on.
    fn unescape(word: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(word.len());
        let mut rest = word;
        while let Some((first, behind)) = rest.split_first() {
            let code = behind.get(..3).filter(|_| *first == b'\\');
            let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
            if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                bytes.push(byte);
                rest = &rest[4..];
            } else {
                bytes.push(*first);
                rest = behind;
            }
        }
        bytes
    }

    fn judge(mount: &Mount, findings: &mut Findings) {
        let what = format!("{} at {}", mount.kind, mount.point.display());
        let concerns = concerns(mount);
        if concerns.is_empty() {
            findings.ok(CHECK, what.as_str());
        }
        for (concern, advice) in concerns {
            findings.warn(CHECK, format!("{what}: {concern}"), advice);
        }
    }

    /// What is not as the store takes it for granted, and what to do.
    fn concerns(mount: &Mount) -> Vec<(&'static str, &'static str)> {
        let mut concerns = Vec::new();
        let kind = mount.kind.as_str();
        match kind {
            "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "9p" | "ceph" | "lustre" | "afs"
            | "beegfs" | "gpfs" | "ocfs2" | "gfs2" | "glusterfs" => concerns.push((
                "a network file system: reading a map can kill the process when the server is \
                 away, and locks and syncs are only as good as the server's",
                "use a local disk, or read_mode Pread and one machine at a time",
            )),
            "tmpfs" | "ramfs" | "devtmpfs" => concerns.push((
                "it is memory: the store is gone when the machine restarts",
                "use a disk, unless that is meant",
            )),
            "overlay" | "aufs" => concerns.push((
                "a container's own layer: the store goes with the container",
                "use a volume, unless that is meant",
            )),
            "vfat" | "exfat" | "msdos" => concerns.push((
                "it has no journal and no hard links: checkpoints copy everything",
                "use ext4, xfs or btrfs",
            )),
            _ if kind.starts_with("fuse") => concerns.push((
                "what a sync and a lock promise here depends on the program behind it",
                "use a local disk, or find out",
            )),
            _ => {}
        }
        let has = |names: &[&str]| {
            let options = mount.options.iter();
            options
                .filter(|option| names.contains(&option.as_str()))
                .count()
                > 0
        };
        if has(&["nobarrier", "barrier=0"]) {
            concerns.push((
                "mounted without barriers: a power cut can take what was synced",
                "mount it with barriers, unless the disk's cache has a battery",
            ));
        }
        if has(&["ro"]) {
            concerns.push((
                "mounted read-only: nothing can be written",
                "mount it for writing, if that is not meant",
            ));
        }
        concerns
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const MOUNTS: &[u8] = b"\
            22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
            30 22 0:50 / /srv rw - xfs /dev/sdb rw,nobarrier\n\
            31 22 0:51 / /srv/my\\040files ro,nosuid - nfs4 host:/x rw,vers=4.2\n\
            32 22 0:52 / /srv rw - tmpfs tmpfs rw\n";

        fn found(path: &str) -> Mount {
            mount_of(MOUNTS, Path::new(path)).unwrap()
        }

        #[test]
        fn a_path_lies_on_the_longest_and_latest_mount() {
            assert_eq!(found("/home/data").kind, "ext4");
            assert_eq!(found("/srvdata").kind, "ext4");
            assert_eq!(found("/srv/data").kind, "tmpfs");
            assert_eq!(found("/srv/my files/data").kind, "nfs4");
            assert_eq!(mount_of(b"", Path::new("/")), None);
            assert_eq!(mount_of(b"nonsense\n1 2 3\n", Path::new("/")), None);
        }

        #[test]
        fn what_cannot_be_relied_on_is_a_concern() {
            let said = |line: &[u8]| {
                let concerns = concerns(&parse(line).unwrap());
                let texts = concerns.into_iter().map(|(concern, _)| concern);
                texts.collect::<Vec<_>>().join("; ")
            };
            assert_eq!(said(b"1 1 8:1 / / rw - ext4 /dev/sda rw"), "");
            assert!(said(b"1 1 8:1 / / rw - nfs host:/x rw").contains("network"));
            assert!(said(b"1 1 8:1 / / rw - tmpfs tmpfs rw").contains("memory"));
            assert!(said(b"1 1 8:1 / / rw a:1 b:2 - overlay x rw").contains("container"));
            assert!(said(b"1 1 8:1 / / ro - ext4 /dev/sda rw").contains("read-only"));
            assert!(said(b"1 1 8:1 / / rw - xfs /dev/sda rw,nobarrier").contains("barriers"));
            assert!(said(b"1 1 8:1 / / rw - fuse.sshfs x rw").contains("program behind"));
        }
    }
}
