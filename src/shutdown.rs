//! Stopping: drain on the first signal, release at the deadline, abort on the second signal.
//!
//! Three tokens and no global: each long-lived part is handed the ones it needs to know.

use std::fmt;
use tokio_util::sync::CancellationToken;

/// What a long-lived part needs to know of stopping. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing new.
    pub drain: CancellationToken,
    /// Let go of what is held, cleanly.
    pub release: CancellationToken,
}

impl Shutdown {
    /// Take nothing new and let go of what is held.
    pub fn now(&self) {
        self.drain.cancel();
        self.release.cancel();
    }
}

/// A signal that asks for the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The exit code of a one-shot command that this signal ended: 128 + its number.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// From now on a write beyond the limit on the size of files (`ulimit -f`) is an error of that write, like a full disk, and
/// not the end of the process. Call it within the runtime, before anything is written.
///
/// # Errors
/// The operating system's.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    // Once caught it stays caught, although nobody listens: only the default action would kill.
    let number = rustix::process::Signal::XFSZ.as_raw();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(number)).map(drop)
}

/// Catches SIGINT and SIGTERM from when it is made until the process ends.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts to catch them.
    ///
    /// # Errors
    /// The operating system's.
    pub fn catch() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal. Safe to drop while it waits.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }
}
