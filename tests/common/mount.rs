//! File systems of a test's own: small ones in memory, and images that a power cut can hit.
//!
//! [`in_private`] gives the test's thread, and the processes it starts, mounts that nobody else
//! sees. They are unmounted by whoever made them, and should the test end in any other way, the
//! system does it with the last of those processes: nothing is left, not even by a killed test.

#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::ioctl::{Opcode, Setter, ioctl};
use tempfile::{TempDir, tempdir};

/// From here on, what this thread mounts is seen by it and its children alone; why not, if that
/// is impossible here.
pub(crate) fn in_private() -> Result<(), String> {
    // SAFETY: takes no pointer. It concerns this thread alone, of which no other one relies on
    // sharing its mounts or its working directory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        let error = io::Error::last_os_error();
        return Err(format!("only root mounts file systems: {error}"));
    }
    run("mount", &["--make-rprivate", "/"])
}

/// Runs a command to its end; what it said, if it failed.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("no {program} here: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next().unwrap_or("").to_owned();
    Err(format!("{program} {}: {said}", args.join(" ")))
}

/// A file system that is mounted until this is dropped.
pub(crate) struct Mount {
    at: PathBuf,
    is_mounted: bool,
    /// Where the limit on its device's writes is to be lifted: the device stays, for others.
    limit: Option<PathBuf>,
}

impl Mount {
    /// One in memory, with these options, as `size=8m`.
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Result<Mount, String> {
        Mount::new("tmpfs", "tmpfs", at, options)
    }

    /// The one in an image, at a loop device that goes with it.
    pub(crate) fn image(image: &Image, at: &Path) -> Result<Mount, String> {
        let path = image.path.to_str().unwrap();
        let options = format!("loop,{}", image.kind.options);
        Mount::new(image.kind.fs, path, at, options.trim_end_matches(','))
    }

    fn new(fs: &str, what: &str, at: &Path, options: &str) -> Result<Mount, String> {
        run(
            "mount",
            &["-t", fs, "-o", options, what, at.to_str().unwrap()],
        )?;
        Ok(Mount {
            at: at.to_path_buf(),
            is_mounted: true,
            limit: None,
        })
    }

    /// Gives it other options while it is in use.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.at.to_str().unwrap()]).unwrap();
    }

    /// Has the loop device below it write no more than a page at a time, as long as this is
    /// mounted: of what it could write in part alone, because the disk below had no more room, it
    /// says that it was written (seen with Linux 6.18: of 8 KiB with room for 4, all of it is
    /// acknowledged, and the second half is gone). A page is written or is not.
    ///
    /// The file system's own blocks must be pages as well, and so must its sectors.
    pub(crate) fn write_by_pages(&mut self) -> Result<(), String> {
        let device = fs::metadata(&self.at).unwrap().dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let limit = format!("/sys/dev/block/{major}:{minor}/queue/max_sectors_kb");
        fs::write(&limit, "4").map_err(|error| format!("{limit}: {error}"))?;
        self.limit = Some(limit.into());
        Ok(())
    }

    /// While the device is still this one's: the next to mount something may get it.
    fn lift_limit(&mut self) {
        if let Some(limit) = self.limit.take() {
            // To what the device can do.
            let _ = fs::write(limit, "0");
        }
    }

    /// What a power cut leaves: nothing that is not on the disk yet will ever be, and from now on
    /// everything fails. Unmount it, and mount it again.
    pub(crate) fn cut_power(&self) {
        /// `_IOR('X', 125, u32)`, the same for XFS and ext4.
        const SHUTDOWN: Opcode = 0x8004_587d;
        /// Not even the journal's part that is in memory.
        const NO_LOG_FLUSH: u32 = 2;
        let dir = File::open(&self.at).unwrap();
        // SAFETY: this request reads a `u32` from the address it is given.
        let shutdown = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: the request changes no memory of this process.
        unsafe { ioctl(&dir, shutdown) }.unwrap();
    }

    /// Unmounts it; everything in it must be closed.
    pub(crate) fn unmount(mut self) {
        self.is_mounted = false;
        self.lift_limit();
        let at = self.at.to_str().unwrap();
        // A process that has ended may be in the midst of being taken apart.
        for _ in 0..1000 {
            if run("umount", &[at]).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.is_mounted = true;
        panic!("{at} cannot be unmounted");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            self.lift_limit();
            // Whatever still uses it: it goes when that is gone.
            let _ = run("umount", &["--lazy", self.at.to_str().unwrap()]);
        }
    }
}

/// A kind of file system in an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What a report calls it.
    pub(crate) name: &'static str,
    pub(crate) fs: &'static str,
    pub(crate) mkfs: &'static [&'static str],
    pub(crate) options: &'static str,
    /// The smallest that it can be made, or nearly, in mebibytes.
    pub(crate) smallest_mib: u64,
}

/// The journal orders data before names and lengths: the default.
pub(crate) const EXT4: Kind = Kind {
    name: "ext4",
    fs: "ext4",
    mkfs: &["mkfs.ext4", "-q", "-F", "-m", "0"],
    options: "",
    smallest_mib: 16,
};

/// A file may have grown, and hold what was there before.
pub(crate) const EXT4_WRITEBACK: Kind = Kind {
    name: "ext4 (data=writeback)",
    options: "data=writeback",
    ..EXT4
};

/// Blocks are allocated when they are written, not when they are flushed.
pub(crate) const EXT4_NODELALLOC: Kind = Kind {
    name: "ext4 (nodelalloc)",
    options: "nodelalloc",
    ..EXT4
};

pub(crate) const XFS: Kind = Kind {
    name: "XFS",
    fs: "xfs",
    mkfs: &["mkfs.xfs", "-q", "-f"],
    options: "",
    smallest_mib: 320,
};

/// A file system in a file, which takes only the room that it uses.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

impl Image {
    pub(crate) fn make(path: &Path, kind: Kind, mib: u64) -> Result<Image, String> {
        let file = File::create(path).unwrap();
        file.set_len(mib << 20).unwrap();
        let mut args = kind.mkfs[1..].to_vec();
        args.push(path.to_str().unwrap());
        run(kind.mkfs[0], &args)?;
        Ok(Image {
            path: path.to_path_buf(),
            kind,
        })
    }
}

/// A small disk in memory, with a directory of its own.
pub(crate) struct SmallDisk {
    // Before the directory, which can go only when nothing is mounted there.
    pub(crate) mount: Mount,
    dir: TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(options: &str) -> Result<SmallDisk, String> {
        in_private()?;
        let dir = tempdir().unwrap();
        let mount = Mount::tmpfs(dir.path(), options)?;
        Ok(SmallDisk { mount, dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
