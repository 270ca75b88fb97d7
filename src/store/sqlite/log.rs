//! The write-ahead log as a file: which page each of its frames holds, and what is on it.
//!
//! By SQLite's description of the format (sqlite.org/fileformat2.html, section 4). The file alone does not say where the log
//! ends: behind the last commit there may be frames of a transaction that was rolled back, and of an older generation. So
//! callers ask SQLite for the number of frames, and for a read transaction that keeps them from being overwritten.
//!
//! SQLite takes no locks on this file, its locks are on the database and on the index. So closing it does no harm, which is not
//! true of the other two (see `snapshots`).

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes before the first frame.
const HEADER: usize = 32;
/// Bytes before the page in a frame.
pub(super) const FRAME_HEADER: usize = 24;
/// The last bit says in which order of bytes the checksums were made.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// The log of a database.
pub(super) struct Log {
    file: File,
    page_size: usize,
}

/// What tells frames of the log from those that were there before it began anew: the salts of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation([u8; 8]);

/// A frame without its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number of its page, from one.
    pub(super) page: u32,
    /// The size of the database in pages, when this frame ends a transaction; else zero.
    pub(super) pages: u32,
}

impl Log {
    /// Opens the log beside a database. It is there as long as somebody has the database open.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(database: &Path, page_size: usize) -> io::Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        Ok(Self { file: File::open(name)?, page_size })
    }

    /// The generation that is in the file; None when it is empty. In a log that has just begun anew it is the old one until the
    /// first frame is written.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn generation(&self) -> io::Result<Option<Generation>> {
        let mut header = [0; HEADER];
        match self.file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            result => result.map(|()| read_header(&header, self.page_size)),
        }
    }

    /// The frames with these numbers, from one; None when one of them is not of this generation.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn frames(
        &self,
        generation: Generation,
        numbers: RangeInclusive<u32>,
    ) -> io::Result<Option<Vec<Frame>>> {
        let mut frames = Vec::new();
        for number in numbers {
            let mut header = [0; FRAME_HEADER];
            match self.file.read_exact_at(&mut header, self.offset(number)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                result => result?,
            }
            let Some(frame) = read_frame(&header, generation) else { return Ok(None) };
            frames.push(frame);
        }
        Ok(Some(frames))
    }

    /// Reads the page of a frame.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn read_page(&self, frame: u32, page: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(page, self.offset(frame) + FRAME_HEADER as u64)
    }

    const fn offset(&self, frame: u32) -> u64 {
        HEADER as u64 + frame.saturating_sub(1) as u64 * (FRAME_HEADER + self.page_size) as u64
    }
}

/// None when this is no header of a log with such pages, or one that is only half written.
fn read_header(header: &[u8; HEADER], page_size: usize) -> Option<Generation> {
    let (words, _) = header.as_chunks::<4>();
    let number = |at: usize| words.get(at).map(|word| u32::from_be_bytes(*word));
    let magic = number(0)?;
    let is_known = magic & !1 == MAGIC && number(1)? == VERSION && usize::try_from(number(2)?) == Ok(page_size);
    let read = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let sum = checksum(words.get(..6)?.iter().map(|word| read(*word)));
    let is_whole = sum == (number(6)?, number(7)?);
    let salts = header.get(16..24)?.try_into().ok()?;
    (is_known && is_whole).then_some(Generation(salts))
}

fn checksum(mut words: impl Iterator<Item = u32>) -> (u32, u32) {
    let mut sum = (0_u32, 0_u32);
    while let (Some(even), Some(odd)) = (words.next(), words.next()) {
        sum.0 = sum.0.wrapping_add(even).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(odd).wrapping_add(sum.0);
    }
    sum
}

/// None when it is of another generation.
fn read_frame(header: &[u8; FRAME_HEADER], generation: Generation) -> Option<Frame> {
    let number = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let is_ours = header.get(8..16)? == generation.0.as_slice();
    let frame = Frame { page: number(0)?, pages: number(4)? };
    (is_ours && frame.page > 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::{Copied, copied};
    use super::super::direct::Direct;
    use super::*;
    use crate::store::rows::Columns;
    use std::time::Duration;

    /// A database with pages of this size, and its log, into which so many transactions were written.
    fn database(page_size: usize, transactions: u32) -> (tempfile::TempDir, Direct, Log) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let plain = rusqlite::Connection::open(&path).unwrap();
        plain.execute_batch(&format!("PRAGMA page_size = {page_size}; CREATE TABLE t (x)")).unwrap();
        plain.close().unwrap();
        let direct = Direct::open(&path, Duration::from_secs(1)).unwrap();
        for _ in 0..transactions {
            write(&direct);
        }
        (folder, direct, Log::open(&path, page_size).unwrap())
    }

    fn write(direct: &Direct) {
        direct.run("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap();
    }

    fn length(direct: &Direct) -> u32 {
        let Copied { frames, .. } = copied(direct).unwrap();
        frames.try_into().unwrap()
    }

    #[test]
    fn frames_of_logs_with_pages_of_every_size_are_read() {
        for page_size in (9..=16).map(|power| 1 << power) {
            let (_folder, direct, log) = database(page_size, 3);
            let generation = log.generation().unwrap().unwrap();
            let frames = log.frames(generation, 1..=length(&direct)).unwrap().unwrap();
            assert_eq!(frames.iter().filter(|frame| frame.pages > 0).count(), 3, "transactions, {page_size}");
            let pages = direct.one("PRAGMA page_count", [], |row| row.int("page_count")).unwrap();
            assert_eq!(i64::from(frames.last().unwrap().pages), pages, "{page_size}");
            assert_eq!(frames.iter().map(|frame| i64::from(frame.page)).max(), Some(pages), "{page_size}");
            // The newest copy of each page is what a checkpoint leaves in the database.
            let mut newest = std::collections::BTreeMap::new();
            for (at, frame) in (1..).zip(&frames) {
                let mut page = vec![1; page_size];
                log.read_page(at, &mut page).unwrap();
                newest.insert(frame.page, page);
            }
            direct.script("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
            let database = std::fs::read(_folder.path().join("x.db")).unwrap();
            for (number, page) in newest {
                let from = (number as usize - 1) * page_size;
                assert_eq!(database[from..from + page_size], page, "page {number} of {page_size}");
            }
            direct.close();
        }
    }

    #[test]
    fn frames_of_an_older_generation_are_none() {
        let (_folder, direct, log) = database(4096, 5);
        let (old, all) = (log.generation().unwrap().unwrap(), length(&direct));
        direct.script("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        write(&direct);
        let (new, few) = (log.generation().unwrap().unwrap(), length(&direct));
        assert!(old != new && few < all, "the log began anew");
        assert_eq!(log.frames(new, 1..=few).unwrap().unwrap().len(), few as usize);
        assert_eq!(log.frames(new, 1..=few + 1).unwrap(), None, "what follows is old");
        assert_eq!(log.frames(old, 1..=1).unwrap(), None, "what was there is overwritten");
        assert_eq!(log.frames(new, 1..=all + 1000).unwrap(), None, "behind the end");
        direct.script("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(log.generation().unwrap(), None, "an empty log has none");
        direct.close();
    }

    #[test]
    fn a_header_that_is_damaged_or_of_something_else_is_none() {
        let (_folder, direct, log) = database(4096, 1);
        let mut header = [0; HEADER];
        log.file.read_exact_at(&mut header, 0).unwrap();
        assert!(read_header(&header, 4096).is_some());
        assert_eq!(read_header(&header, 8192), None);
        for at in 0..HEADER {
            let mut damaged = header;
            damaged[at] ^= 4;
            assert_eq!(read_header(&damaged, 4096), None, "byte {at}");
        }
        direct.close();
    }
}
