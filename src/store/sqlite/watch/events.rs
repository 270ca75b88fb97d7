//! The kernel's word (inotify) that somebody wrote to the write-ahead log.
//!
//! The file is watched and not its folder, which may be a busy one. SQLite makes the log anew when the last connection has
//! closed it; then, and whenever the kernel has no more watches to give, nothing is heard until [`Events::renew`].

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Events that are taken at a time, in bytes. The kernel merges equal ones, so that there are seldom more than two.
const BUFFER: usize = 1024;

/// Writes to one file. Deaf until renewed.
pub(super) struct Events {
    log: PathBuf,
    queue: Option<OwnedFd>,
    /// The watch of the file that has the name now.
    watched: Option<i32>,
    /// The kernel has refused, or was not to be asked at all: the poll alone has to do.
    off: bool,
}

impl Events {
    pub(super) const fn new(log: PathBuf) -> Self {
        Self { log, queue: None, watched: None, off: false }
    }

    /// Never hears anything.
    pub(super) const fn none() -> Self {
        Self { log: PathBuf::new(), queue: None, watched: None, off: true }
    }

    /// Watches the file that has the name now. Costs one look at the name when that is still the same.
    pub(super) fn renew(&mut self) {
        if self.off {
            return;
        }
        let queue = match self.queue.take() {
            Some(queue) => queue,
            None => match open() {
                Ok(queue) => queue,
                Err(error) => {
                    tracing::debug!(%error, "no file-change notification: commits of others are noticed by polling alone");
                    self.off = true;
                    return;
                }
            },
        };
        // For a file that is watched already the kernel answers with the watch that it has.
        // It fails as long as there is no log, and where the limit of watches is reached: the poll notices commits all the same,
        // and the next one tries again.
        let watched = inotify::add_watch(&queue, &self.log, WatchFlags::MODIFY).ok();
        if let Some(old) = self.watched
            && watched != Some(old)
        {
            // It is gone by itself when the old file is, and this fails then.
            if let Err(error) = inotify::remove_watch(&queue, old) {
                tracing::trace!(%error, "an old watch");
            }
        }
        self.watched = watched;
        self.queue = Some(queue);
    }

    /// Takes what is there: whether anything was written since the last time.
    pub(super) fn take(&mut self) -> bool {
        let Some(queue) = &self.queue else { return false };
        let mut buffer = [0; BUFFER];
        let mut heard = false;
        while read(queue, &mut buffer).is_ok_and(|length| length > 0) {
            heard = true;
        }
        heard
    }

    /// Waits until something was written, `bell` has rung, or the time is over. True in the first case.
    pub(super) fn wait(&mut self, bell: BorrowedFd<'_>, at_most: Duration) -> bool {
        let mut watched = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        if let Some(queue) = &self.queue {
            watched.push(PollFd::new(queue, PollFlags::IN));
        }
        ready(&mut watched, at_most) > 0 && self.take()
    }
}

/// Waits until `bell` has rung or the time is over, deaf to everything else.
pub(super) fn rung(bell: BorrowedFd<'_>, at_most: Duration) {
    ready(&mut [PollFd::from_borrowed_fd(bell, PollFlags::IN)], at_most);
}

/// How many of these have something to read, as soon as one has or the time is over. Interrupted is as good as over: whoever
/// waits looks, and waits again.
fn ready(watched: &mut [PollFd<'_>], at_most: Duration) -> usize {
    Timespec::try_from(at_most).ok().and_then(|time| poll(watched, Some(&time)).ok()).unwrap_or(0)
}

fn open() -> std::io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}
