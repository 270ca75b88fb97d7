//! The program: parses the command line, starts the runtime, runs the command, and ends with its exit code.

use freightliner::{cli, config, shutdown};
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

/// How long the end of the program waits for blocking work, such as a read from a terminal that nobody types on.
const LAST_WAIT: Duration = Duration::from_millis(200);
/// Exit code when the program itself is at fault.
const BROKEN: u8 = 1;
/// Size of the largest block of memory that the allocator shall keep for the next one who needs it, in bytes.
const KEPT_BLOCK: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments = match config::hide(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(cli::cannot_hide(&error)),
    };
    keep_freed_buffers();
    std::panic::set_hook(Box::new(cli::report_panic));
    // The hook has said what there is to say.
    let exit = std::panic::catch_unwind(AssertUnwindSafe(|| run(&arguments))).unwrap_or(BROKEN);
    ExitCode::from(exit)
}

/// Lets the allocator keep the buffers that a copy frees.
///
/// glibc gives a block above its threshold (128 KiB at first) straight back to the kernel, so a stream of buffers of
/// 256 KiB costs a page fault and a cleared page for every 4 KiB of it: a quarter of the CPU of a large layer. Once a
/// block of some size was freed, glibc serves all up to that size from what it kept (`mallopt(3)`,
/// `M_MMAP_THRESHOLD`). Other allocators lose nothing by one block.
fn keep_freed_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BLOCK)));
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
