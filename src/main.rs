//! The program: parses the command line, starts the runtime, runs the command, and ends with its exit code.

use freightliner::{cli, shutdown};
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

/// How long the end of the program waits for blocking work, such as a read from a terminal that nobody types on.
const LAST_WAIT: Duration = Duration::from_millis(200);
/// Exit code when the program itself is at fault.
const BROKEN: u8 = 1;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    std::panic::set_hook(Box::new(cli::report_panic));
    // The hook has said what there is to say.
    let exit = std::panic::catch_unwind(AssertUnwindSafe(|| run(&arguments))).unwrap_or(BROKEN);
    ExitCode::from(exit)
}

fn run(arguments: &[OsString]) -> u8 {
    let invocation = match cli::parse(arguments) {
        Ok(invocation) => invocation,
        Err(exit) => return exit,
    };
    // Two at least: one may be deep in a checksum while the other one answers.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cli::cannot_start(&invocation, &error),
    };
    if let Err(error) = runtime.block_on(async { shutdown::survive_file_size_limit() }) {
        return cli::cannot_start(&invocation, &error);
    }
    let exit = runtime.block_on(cli::run(invocation));
    runtime.shutdown_timeout(LAST_WAIT);
    exit
}
