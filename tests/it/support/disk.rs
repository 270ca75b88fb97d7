//! A small file system that can be filled, and made read-only.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory. Unmounted on drop; declare it before what lies on it.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// None (said loudly) where one may not mount.
    pub fn of(size: &str) -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().expect("a temp folder") };
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none"], disk.path());
        if !mounted {
            eprintln!("SKIPPED: a test of full disks must be allowed to mount a file system (run it as root)");
            return None;
        }
        Some(disk)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another size (`size=64m`), or `ro`, `rw`.
    pub fn change(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], self.path()), "remount");
    }

    /// Fills it but for so many bytes, about.
    pub fn fill_but(&self, left: u64) -> PathBuf {
        let filler = self.fill();
        let file = std::fs::OpenOptions::new().write(true).open(&filler).expect("open the filler");
        let size = file.metadata().expect("its size").len();
        file.set_len(size.saturating_sub(left)).expect("cut the filler");
        filler
    }

    /// Fills it up to the last byte.
    pub fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = std::fs::File::create(&filler).expect("make a file");
        for piece in [64 * 1024, 1024, 1] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn mount(options: &[&str], on: &Path) -> bool {
    let Some(program) = super::need("mount") else { return false };
    Command::new(program).args(options).arg(on).output().expect("run mount").status.success()
}
