//! A wall clock that a test can move under running processes, by libfaketime. The monotonic clocks go on as they are.

use std::path::PathBuf;

/// The wall clock of all processes that were started with its variables.
pub struct WallClock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl WallClock {
    /// A clock that is right so far. None (said loudly) without libfaketime.
    pub fn new() -> Option<Self> {
        super::need("faketime")?;
        let library = ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
            .into_iter()
            .flat_map(|root| {
                std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).chain([root.into()])
            })
            .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.is_file())
            .expect("faketime is installed, and its library is where libraries are");
        let clock = Self { folder: tempfile::tempdir().expect("a temp folder"), library };
        clock.set("+0");
        Some(clock)
    }

    /// Differs from the true time by this from now on: `+2h`, `-30m`.
    pub fn set(&self, offset: &str) {
        // In one step: a process may look at any moment.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{offset}\n")).expect("write the clock");
        std::fs::rename(next, self.file()).expect("set the clock");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// What a process needs to see this clock.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
