//! What can go wrong with a layout, and what it means for the job.

use crate::job::retry::Class;
use std::io;

/// An error of a layout. Display is one line: what was being done, on which file or layout, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    class: Class,
    #[source]
    source: Option<io::Error>,
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    pub(super) fn refused(message: String) -> Self {
        Self { message, class: Class::Refused, source: None }
    }

    pub(super) fn absent(message: String) -> Self {
        Self { message, class: Class::Absent, source: None }
    }

    pub(super) fn corrupt(message: String) -> Self {
        Self { message, class: Class::Corrupt, source: None }
    }

    pub(super) fn retry(message: String) -> Self {
        Self { message, class: Class::Retry { after: None }, source: None }
    }

    /// Reading `what` failed.
    pub(super) fn read(what: &str, cause: io::Error) -> Self {
        let class = if cause.kind() == io::ErrorKind::NotFound { Class::Absent } else { class_of(&cause) };
        Self { message: format!("cannot read {what}: {}", reason(&cause)), class, source: Some(cause) }
    }

    /// Writing `what` failed.
    pub(super) fn write(what: &str, cause: io::Error) -> Self {
        Self {
            message: format!("cannot write {what}: {}", reason(&cause)),
            class: class_of(&cause),
            source: Some(cause),
        }
    }

    /// Work on the disk was not done at all: it panicked, or the program is going down.
    pub(super) fn task(cause: io::Error) -> Self {
        Self {
            message: format!("work on a layout was broken off: {cause}"),
            class: Class::Retry { after: None },
            source: Some(cause),
        }
    }
}

/// Where something to be written goes missing, somebody removed it meanwhile: that is worth another try.
fn class_of(cause: &io::Error) -> Class {
    use io::ErrorKind as Kind;
    if is_link(cause) {
        return Class::Refused;
    }
    match cause.kind() {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Class::Denied,
        Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::DirectoryNotEmpty
        | Kind::InvalidFilename
        | Kind::InvalidInput
        | Kind::CrossesDevices
        | Kind::Unsupported => Class::Refused,
        _ => Class::Retry { after: None },
    }
}

/// Where links are not followed, meeting one is this error.
fn is_link(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// The system's own words, with what they mean for the reader where they do not say it.
fn reason(cause: &io::Error) -> String {
    let hint = match cause.kind() {
        io::ErrorKind::StorageFull => "the disk is full; free some space",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up; free some space",
        io::ErrorKind::FileTooLarge => "the file is larger than this process or file system allows",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        io::ErrorKind::CrossesDevices => "a folder of the layout is another file system",
        _ if is_link(cause) => "it is a symbolic link, which is not followed for writing",
        _ => return cause.to_string(),
    };
    format!("{hint} ({cause})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_cause() {
        let retry = Class::Retry { after: None };
        for (errno, writing, reading) in [
            (rustix::io::Errno::NOSPC, retry, retry),
            (rustix::io::Errno::DQUOT, retry, retry),
            (rustix::io::Errno::FBIG, retry, retry),
            (rustix::io::Errno::IO, retry, retry),
            (rustix::io::Errno::NOENT, retry, Class::Absent),
            (rustix::io::Errno::ACCESS, Class::Denied, Class::Denied),
            (rustix::io::Errno::PERM, Class::Denied, Class::Denied),
            (rustix::io::Errno::ROFS, Class::Denied, Class::Denied),
            (rustix::io::Errno::NOTDIR, Class::Refused, Class::Refused),
            (rustix::io::Errno::XDEV, Class::Refused, Class::Refused),
            (rustix::io::Errno::LOOP, Class::Refused, Class::Refused),
        ] {
            assert_eq!(Error::write("x", errno.into()).class(), writing, "{errno}");
            assert_eq!(Error::read("x", errno.into()).class(), reading, "{errno}");
        }
        let full = Error::write("blob x", rustix::io::Errno::NOSPC.into()).to_string();
        assert!(full.starts_with("cannot write blob x: the disk is full"), "{full}");
    }
}
