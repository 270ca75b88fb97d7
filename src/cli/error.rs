//! Why a command ends otherwise than well: one line for people, a code for programs, a hint, an exit code.
//!
//! One type for all commands, because all of them end in the same place: `output` prints it, `main` exits with it. It is
//! made from the errors of the doors below and keeps their words; nothing is logged here.

use crate::job::{Class, Invalid};
use crate::shutdown::Signal;
use crate::{config, daemon, layout, registry, replicate, store};

/// How a command that did not do what was asked ends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The exit code of the program.
    pub exit: u8,
    /// One word for programs (`error.code`). Empty: everything has been said, nothing is printed any more.
    pub code: String,
    /// What was being done, on what, and why it failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// More for programs (`error.lines`), an array.
    pub lines: Option<serde_json::Value>,
}

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Exit code: failed, wholly or partly.
pub const FAILED: u8 = 1;
/// Exit code: usage or configuration.
pub const USAGE: u8 = 2;

impl Error {
    fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), hint: None, lines: None }
    }

    /// It failed. Exit 1.
    #[must_use]
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(FAILED, code, message)
    }

    /// It was asked for in a way that makes no sense. Exit 2.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, "usage", message)
    }

    /// It is not there yet. Exit 1.
    #[must_use]
    pub fn not_implemented(what: &str) -> Self {
        Self::new(FAILED, "not_implemented", format!("not implemented: {what}"))
    }

    /// A signal ended it. Exit 128 plus the signal's number.
    #[must_use]
    pub fn interrupted(signal: Signal, message: impl Into<String>) -> Self {
        Self::new(signal.exit_code(), "interrupted", message)
    }

    /// Nothing more is to be said. Exit with `exit`.
    #[must_use]
    pub fn silent(exit: u8) -> Self {
        Self::new(exit, "", "")
    }

    /// A failure to write to stdout: quiet when the reader went away (`| head`), else an error.
    #[must_use]
    pub fn stdout(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(0);
        }
        Self::failed("io", format!("writing to standard output failed: {error}"))
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With a list for programs.
    #[must_use]
    pub fn lines(self, lines: serde_json::Value) -> Self {
        Self { lines: Some(lines), ..self }
    }

    /// Nothing is printed for it.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.code.is_empty()
    }

    /// Something that was typed is wrong, or asks for what is not there yet.
    fn refused(code: &str, message: String) -> Self {
        // "not implemented" may stand behind the name of what was typed.
        if message.contains("not implemented: ") {
            return Self::new(FAILED, "not_implemented", message);
        }
        Self::new(USAGE, code, message)
    }

    /// An error of a door that gives its errors a class.
    fn classed(class: Class, message: String) -> Self {
        let error = Self::failed(class.as_str(), message);
        match class {
            Class::Retry { .. } => {
                error.hint("this may pass: try again, or let `freightliner doctor HOST` look at the registry")
            }
            Class::Denied | Class::Absent | Class::Refused | Class::Corrupt => error,
        }
    }
}

impl From<Invalid> for Error {
    fn from(error: Invalid) -> Self {
        Self::refused("invalid", error.0)
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        if error.is_not_implemented() {
            return Self::new(FAILED, "not_implemented", error.to_string());
        }
        Self::new(USAGE, "configuration", error.to_string())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Invalid(message) => Self::refused("invalid", message),
            store::Error::KeyConflict(message) => Self::new(USAGE, "conflict", message),
            store::Error::NotFound(message) => Self::failed("not_found", message),
            store::Error::Unusable(message) | store::Error::Outdated(message) => Self::failed("unusable", message),
            other @ store::Error::Backend { .. } => Self::failed("backend", other.to_string()),
        }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::classed(error.class(), error.to_string())
    }
}

impl From<layout::Error> for Error {
    fn from(error: layout::Error) -> Self {
        Self::classed(error.class(), error.to_string())
    }
}

impl From<replicate::Error> for Error {
    fn from(error: replicate::Error) -> Self {
        Self::classed(error.class, error.to_string())
    }
}

impl From<daemon::Error> for Error {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::Store(error) => error.into(),
            daemon::Error::NoJob(_) => Self::failed("not_found", error.to_string()),
            other => Self::failed("failed", other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        assert_eq!(Error::from(Invalid("source `x`: bad".into())).exit, USAGE);
        assert_eq!(Error::from(Invalid("not implemented: platforms".into())).exit, FAILED);
        assert_eq!(Error::from(store::Error::KeyConflict("differs".into())).exit, USAGE);
        assert_eq!(Error::from(store::Error::NotFound("job 9 not found".into())).exit, FAILED);
        assert_eq!(Error::interrupted(Signal::Interrupt, "").exit, 130);
        assert_eq!(Error::interrupted(Signal::Terminate, "").exit, 143);
        assert_eq!(Error::from(config::Error::one("not implemented: PostgreSQL")).exit, FAILED);
        assert_eq!(Error::from(config::Error::one("bad")).exit, USAGE);
        let pipe = Error::stdout(&std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(pipe.is_silent() && pipe.exit == 0);
    }
}
