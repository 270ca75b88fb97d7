//! Processes that are watched: how long they take, what they cost, and that they are gone afterwards.

use crate::{Failure, Measured};
use freightliner::clock::Clock;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Pause between looks at whether a process has ended: the grain of the times measured.
const LOOK: Duration = Duration::from_millis(2);
/// Looks from one sample of the memory to the next.
const LOOKS_A_SAMPLE: u32 = 5;

/// What a process cost, or several together.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Most memory in use at a time, bytes; of several processes the largest.
    pub peak_bytes: u64,
}

impl Cost {
    /// One after the other.
    pub fn then(self, next: Self) -> Self {
        Self { wall: self.wall + next.wall, cpu: self.cpu + next.cpu, peak_bytes: self.peak_bytes.max(next.peak_bytes) }
    }

    /// Side by side.
    pub fn beside(self, other: Self) -> Self {
        Self { wall: self.wall.max(other.wall), ..self.then(other) }
    }
}

/// A child process; killed when dropped.
pub struct Process {
    child: Child,
    start: freightliner::clock::BootTime,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command) -> Measured<Self> {
        let start = Clock::System.boot();
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("starting {name}: {error}"))?;
        Ok(Self { child, start })
    }

    /// The child, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// It has ended; it is not waited for yet, so that the kernel still knows its figures.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn has_ended(&self) -> Measured<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?.is_some())
    }

    /// Waits until it has ended; what it cost.
    ///
    /// # Errors
    /// It failed, or cannot be asked for.
    pub async fn end(mut self, what: &str) -> Measured<Cost> {
        let mut peak_bytes = 0;
        let mut look = 0;
        while !self.has_ended()? {
            if look % LOOKS_A_SAMPLE == 0 {
                peak_bytes = self.peak_bytes().unwrap_or(peak_bytes);
            }
            look += 1;
            tokio::time::sleep(LOOK).await;
        }
        let wall = Clock::System.boot().since(self.start);
        let cpu = self.cpu()?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("{what} ended with {status}").into());
        }
        Ok(Cost { wall, cpu, peak_bytes })
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> Measured {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// Most memory so far (`VmHWM`); None once it has ended.
    fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.proc("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Processor time of it and the children it waited for (proc(5), `stat`: fields 14 to 17).
    fn cpu(&self) -> Measured<Duration> {
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let ticks: u64 = fields.split_whitespace().skip(11).take(4).map(|field| field.parse().unwrap_or(0u64)).sum();
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end.
///
/// # Errors
/// It failed; what it said on standard error stands in the error.
pub async fn run(command: &mut Command) -> Measured<Cost> {
    let what = command.get_program().to_string_lossy().into_owned();
    let said = tempfile::NamedTempFile::new()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen()?);
    let ended = Process::spawn(command)?.end(&what).await;
    ended.map_err(|error| {
        let text = std::fs::read_to_string(said.path()).unwrap_or_default();
        let last = text.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        Failure::from(format!("{error}: {last}"))
    })
}
