//! A disk that forgets at a power cut what was not brought to it: files replayed from a trace.

use super::trace::Step;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Bytes that a disk writes as one, or not at all.
const SECTOR: usize = 512;

/// How much of what was not synced is on the disk when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// None of it.
    Nothing,
    /// Some sectors of some writes, in no order, and some names; another choice for each seed.
    Some(u64),
    /// All of it, as after `kill -9`.
    Everything,
}

enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate(u64),
}

#[derive(Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

/// A sync that is under way: what it promises when it ends.
enum Promise {
    File { file: usize, content: Vec<u8>, changes: usize },
    Names(BTreeMap<String, usize>),
}

/// The files of one folder, as programs see them and as the disk has them.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    promises: HashMap<u32, Promise>,
}

impl Disk {
    /// One step further.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Opened(name) => {
                let next = self.files.len();
                let file = *self.names.entry(name.clone()).or_insert(next);
                if file == next {
                    self.files.push(File::default());
                }
            }
            Step::Wrote { file, at, bytes } => {
                let change = Change::Write { at: *at, bytes: bytes.clone() };
                self.change(file, change);
            }
            Step::Truncated { file, size } => self.change(file, Change::Truncate(*size)),
            Step::Removed(name) => drop(self.names.remove(name)),
            Step::SyncBegan(process, name) if name.is_empty() => {
                self.promises.insert(*process, Promise::Names(self.names.clone()));
            }
            Step::SyncBegan(process, name) => {
                let file = self.names[name];
                let (content, changes) = (self.files[file].now.clone(), self.files[file].unsynced.len());
                self.promises.insert(*process, Promise::File { file, content, changes });
            }
            Step::SyncEnded(process) => match self.promises.remove(process).expect("a sync that began") {
                Promise::Names(names) => self.synced_names = names,
                Promise::File { file, content, changes } => {
                    self.files[file].synced = content;
                    self.files[file].unsynced.drain(..changes);
                }
            },
            Step::Said(_) => {}
        }
    }

    fn change(&mut self, name: &str, change: Change) {
        let file = &mut self.files[self.names[name]];
        make(&mut file.now, &change, |_| true);
        file.unsynced.push(change);
    }

    /// What is on the disk if the power goes now, by name.
    pub fn image(&self, luck: Luck) -> BTreeMap<String, Vec<u8>> {
        let mut dice = match luck {
            Luck::Some(seed) => Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            _ => Dice(1),
        };
        let names = match luck {
            Luck::Nothing => &self.synced_names,
            Luck::Some(_) if dice.heads() => &self.synced_names,
            _ => &self.names,
        };
        let mut image = BTreeMap::new();
        for (name, file) in names.iter().filter(|(name, _)| !name.ends_with("-shm")) {
            let file = &self.files[*file];
            let content = match luck {
                Luck::Nothing => file.synced.clone(),
                Luck::Everything => file.now.clone(),
                Luck::Some(_) => {
                    let mut content = file.synced.clone();
                    for change in &file.unsynced {
                        if dice.heads() {
                            let whole = dice.heads();
                            make(&mut content, change, |_| whole || dice.heads());
                        }
                    }
                    content
                }
            };
            image.insert(name.clone(), content);
        }
        image
    }
}

/// Makes a change, but for sectors that are not kept.
fn make(content: &mut Vec<u8>, change: &Change, mut keeps: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate(size) => content.resize(usize::try_from(*size).expect("a size"), 0),
        Change::Write { at, bytes } => {
            let at = usize::try_from(*at).expect("an offset");
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            for (index, piece) in bytes.chunks(SECTOR).enumerate() {
                if keeps(index) {
                    let start = at + index * SECTOR;
                    content[start..start + piece.len()].copy_from_slice(piece);
                }
            }
        }
    }
}

/// Writes an image into an empty folder.
pub fn lay_down(image: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir(folder).expect("make a folder");
    for (name, content) in image {
        std::fs::write(folder.join(name), content).expect("write an image");
    }
}

struct Dice(u64);

impl Dice {
    fn heads(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 63 == 1
    }
}
