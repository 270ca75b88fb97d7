//! What programs did to the files of one folder, and what they said meanwhile, as `strace` saw it: one order for all processes.
//!
//! A write counts from the moment it began, a sync from the moment it ended, and only for what was written before it began: so
//! a replay never believes more to be on the disk than the kernel has promised.

use super::need;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest string that is recorded, bytes; more than a page of a database or a line of a log.
const LONGEST: &str = "70000";

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file of the folder was made, or opened when it was there; its name.
    Opened(String),
    Wrote {
        file: String,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncated {
        file: String,
        size: u64,
    },
    Removed(String),
    /// A process (its id) begins to bring a file to the disk; an empty name is the folder itself.
    SyncBegan(u32, String),
    SyncEnded(u32),
    /// A process wrote this text to its standard output or standard error.
    Said(String),
}

/// A shell command line under `strace`: the command to run. None (said loudly) without that tool.
pub fn traced(script: &str, log: &Path) -> Option<Command> {
    let mut command = Command::new(need("strace")?);
    command.args(["-f", "--seccomp-bpf", "-y", "-xx", "-s", LONGEST, "-o"]).arg(log);
    command.args(["-e", "trace=openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink", "-e", "signal=none"]);
    command.args(["sh", "-c", script]);
    Some(command)
}

/// What the log of `traced` says about files directly in this folder.
pub fn read(log: &Path, folder: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(log).expect("read the trace");
    let mut reader = Reader { folder: folder.to_owned(), unfinished: HashMap::new(), steps: Vec::new() };
    for line in text.lines() {
        reader.line(line);
    }
    reader.steps
}

struct Reader {
    folder: PathBuf,
    /// The beginning of a call that another process interrupted in the log.
    unfinished: HashMap<u32, String>,
    steps: Vec<Step>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let Some((process, rest)) = line.split_once(' ') else { return };
        let process: u32 = process.parse().expect("a process id");
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            self.begin(process, begun);
            self.unfinished.insert(process, begun.to_owned());
        } else if rest.starts_with("<... ") {
            let end = rest.split_once(" resumed>").expect("a resumed call").1;
            let call = self.unfinished.remove(&process).expect("a call that began");
            self.end(process, &format!("{call}{end}"));
        } else if rest.contains('(') {
            self.begin(process, rest);
            self.end(process, rest);
        }
    }

    /// What counts from its beginning.
    fn begin(&mut self, process: u32, call: &str) {
        let (name, arguments) = call.split_once('(').expect("a call");
        match name {
            "pwrite64" => {
                if let Some(file) = self.file(arguments) {
                    let (bytes, rest) = string(arguments.split_once(", ").expect("arguments").1);
                    let at = rest.rsplit_once(", ").expect("an offset").1;
                    let at = at.split(')').next().expect("an offset").trim().parse().expect("an offset");
                    self.steps.push(Step::Wrote { file, at, bytes });
                }
            }
            "write" if arguments.starts_with("1<") || arguments.starts_with("2<") => {
                let (bytes, _) = string(arguments.split_once(", ").expect("arguments").1);
                self.steps.push(Step::Said(String::from_utf8_lossy(&bytes).into_owned()));
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = self.file(arguments) {
                    self.steps.push(Step::SyncBegan(process, file));
                }
            }
            _ => {}
        }
    }

    /// What counts from its end, when it succeeded.
    fn end(&mut self, process: u32, call: &str) {
        let (name, arguments) = call.split_once('(').expect("a call");
        let result = call.rsplit_once("= ").map_or("?", |(_, result)| result);
        if result.starts_with(['-', '?']) {
            assert!(!matches!(name, "pwrite64" | "fsync" | "fdatasync"), "the replay knows no failed writes: {result}");
            return;
        }
        match name {
            "openat" if arguments.contains("O_CREAT") => {
                let path = string(arguments.split_once(", ").expect("arguments").1).0;
                if let Some(file) = self.name(Path::new(&String::from_utf8_lossy(&path).into_owned())) {
                    self.steps.push(Step::Opened(file));
                }
            }
            "unlink" => {
                let path = string(arguments).0;
                if let Some(file) = self.name(Path::new(&String::from_utf8_lossy(&path).into_owned())) {
                    self.steps.push(Step::Removed(file));
                }
            }
            "ftruncate" => {
                if let Some(file) = self.file(arguments) {
                    let size = arguments.split_once(", ").expect("arguments").1;
                    let size = size.split(')').next().expect("a size").trim().parse().expect("a size");
                    self.steps.push(Step::Truncated { file, size });
                }
            }
            "fsync" | "fdatasync" if self.file(arguments).is_some() => self.steps.push(Step::SyncEnded(process)),
            _ => {}
        }
    }

    /// The name of the open file that is the first argument, when it is in the folder; empty for the folder.
    fn file(&self, arguments: &str) -> Option<String> {
        let path = unescape(arguments.split_once('<')?.1.split_once('>')?.0);
        self.name(Path::new(&String::from_utf8_lossy(&path).into_owned()))
    }

    fn name(&self, path: &Path) -> Option<String> {
        if path == self.folder {
            return Some(String::new());
        }
        (path.parent()? == self.folder).then(|| path.file_name().expect("a name").to_string_lossy().into_owned())
    }
}

/// The string at the start of this text, and what follows it.
fn string(text: &str) -> (Vec<u8>, &str) {
    let (content, rest) = text.strip_prefix('"').and_then(|text| text.split_once('"')).expect("a string");
    assert!(!rest.starts_with("..."), "a write was longer than what is recorded");
    (unescape(content), rest)
}

/// `\x2f\x74` as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks_exact(4).map(|piece| digit(piece[2]) * 16 + digit(piece[3])).collect()
}
