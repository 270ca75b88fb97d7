//! The command line: what is typed becomes a [`Context`] and one command, and its end becomes an exit code.
//!
//! Read [`Command`] for what there is and [`run`] for the way of every command; each command has a file. Commands that the
//! contract names but that are not there yet are no variants: `arguments` answers for them, so that `--help` shows only
//! what works. A command never prints by itself and never ends the process: it writes to `output` and returns.

#![expect(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments of arguments are what --help prints, where [x] marks what may be left out"
)]

mod arguments;
mod bars;
mod batch;
mod completions;
mod context;
mod copy;
mod credentials;
mod db;
mod delete;
mod doctor;
mod enqueue;
mod error;
mod health_check;
mod image;
mod inspect;
mod jobs;
mod keys;
mod lines;
mod list_tags;
mod logging;
mod man;
mod manifest;
mod mirror;
mod output;
mod progress;
mod queue;
mod replicate;
mod report;
mod schedule;
mod serve;
mod sql;
mod sweep;
mod tree;
mod version;
mod when;
mod work;
mod workers;

pub use arguments::parse;
pub use context::Context;
pub use error::{Error, Result};
pub use output::{Format, Notes, Output};

use crate::clock::Clock;
use crate::config::logging::{Level, LogFormat};
use crate::config::{self, Config, Typed, process_environment};
use crate::shutdown::Signal;
use clap::{Args, Parser, Subcommand};
use progress::Mode;
use std::io::IsTerminal;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Replicates container images between OCI registries through a durable job queue.
#[derive(Debug, Parser)]
#[command(name = "freightliner", version, max_term_width = 120)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (wholly or partly), 2 usage or configuration, 130/143 ended by a signal."
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command; may stand before or behind its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The database [env: FREIGHTLINER_DATABASE_URL] [default: sqlite: in the platform's state directory].
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// Temporary files, worker locks, keys [env: FREIGHTLINER_STATE_DIR] [default: beside the SQLite file].
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A configuration file, TOML [env: FREIGHTLINER_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The form of results; jsonl is one object a line.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help = "The form of results: text, json or jsonl (one object a line)"
    )]
    output: Format,
    /// error, warn, info, debug or trace [env: FREIGHTLINER_LOG_LEVEL] [default: warn; info for work, error for replicate].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = str::parse::<Level>)]
    log_level: Option<Level>,
    /// The form of log lines [env: FREIGHTLINER_LOG_FORMAT] [default: text].
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How progress is shown on stderr: bars, plain (a line now and then), jsonl (events, one JSON object a line) or none
    /// [default: bars on a terminal; elsewhere plain for replicate, none for work and with -o json].
    #[arg(long, global = true, value_enum, value_name = "MODE", hide_possible_values = true)]
    progress: Option<Mode>,
    /// The same as --progress none.
    #[arg(long, global = true, conflicts_with = "progress")]
    no_progress: bool,
    /// Trust these CA certificates too: a PEM file; may be repeated.
    #[arg(long = "ca-file", global = true, value_name = "FILE")]
    ca_files: Vec<PathBuf>,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy an image and wait until it is there.
    Replicate(replicate::ReplicateArgs),
    /// Put copies into the queue, for workers to do.
    Enqueue(enqueue::EnqueueArgs),
    /// Copy the repositories below a prefix, as one batch.
    ReplicateTree(tree::TreeArgs),
    /// Copy what a file of rules selects, as one batch: the sync.yaml of the older program, named by --config.
    Sync(mirror::SyncArgs),
    /// Keep repositories in step by the rules of the configuration file.
    #[command(subcommand)]
    Mirror(mirror::MirrorCommand),
    /// Look at batches and steer them.
    #[command(subcommand, visible_alias = "checkpoint")]
    Batch(batch::BatchCommand),
    /// Run workers until a signal.
    Work(work::WorkArgs),
    /// Serve the API, and work.
    Serve(serve::ServeArgs),
    /// Keys of the API of `serve`.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Store the credential of a registry in the vault.
    Login(credentials::LoginArgs),
    /// Remove the credential of a registry from the vault.
    Logout(credentials::LogoutArgs),
    /// The vault: credentials of registries, sealed in the database.
    #[command(subcommand)]
    Credentials(credentials::CredentialsCommand),
    /// Look at jobs and steer them.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Look at queues, pause and limit them.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Have copies made again and again.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Look at who works.
    #[command(subcommand)]
    Workers(workers::WorkersCommand),
    /// Take up what dead workers left: jobs and temporary files.
    Sweep(sweep::SweepArgs),
    /// Show what an image consists of.
    Inspect(inspect::InspectArgs),
    /// List the tags of a repository.
    ListTags(list_tags::ListTagsArgs),
    /// Print a manifest, byte for byte.
    Manifest(manifest::ManifestArgs),
    /// Delete an image from a registry.
    Delete(delete::DeleteArgs),
    /// Look after the database.
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Run one read-only query.
    Sql(sql::SqlArgs),
    /// Check the set-up: database, file system, permissions, clock, credentials, registries.
    Doctor(doctor::DoctorArgs),
    /// Check that the database and the state folder can be used, and print OK.
    HealthCheck,
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write one page a command.
    Man(man::ManArgs),
    /// Print the version and what it was built from.
    Version(version::VersionArgs),
}

impl Command {
    /// Long-lived commands tell what they do; one-shot commands are silent unless something is wrong. `replicate` tells of
    /// failed attempts itself, so that they would stand there twice.
    const fn log_level(&self) -> Level {
        match self {
            Self::Work(_) | Self::Serve(_) => Level::Info,
            Self::Replicate(_) | Self::ReplicateTree(_) | Self::Sync(_) | Self::Mirror(_) | Self::Batch(_) => {
                Level::Error
            }
            _ => Level::Warn,
        }
    }

    /// What is shown when nobody says: `work` tells of its jobs by log lines, and lines beside them say little more.
    fn progress(&self, format: Format) -> Mode {
        match self {
            _ if format.is_json() => Mode::None,
            Self::Serve(_) => Mode::None,
            Self::Work(_) if !std::io::stderr().is_terminal() => Mode::None,
            _ => Mode::Bars,
        }
    }

    /// Numbers of the configuration that this command's own flags set.
    fn numbers(&self) -> Vec<(&'static str, &'static str, u64)> {
        match self {
            Self::Replicate(arguments) => arguments.numbers(),
            Self::Work(arguments) => arguments.numbers(),
            Self::ReplicateTree(tree::TreeArgs { workers: Some(copies), .. })
            | Self::Serve(serve::ServeArgs { concurrency: Some(copies), .. })
            | Self::Mirror(mirror::MirrorCommand::Run(mirror::RunArgs { concurrency: Some(copies), .. }))
            | Self::Batch(batch::BatchCommand::Resume(batch::ResumeArgs { concurrency: Some(copies), .. })) => {
                vec![("worker", "concurrency", *copies)]
            }
            _ => Vec::new(),
        }
    }

    /// Handles signals itself, because it holds something that must be released.
    const fn handles_signals(&self) -> bool {
        matches!(
            self,
            Self::Work(_)
                | Self::Serve(_)
                | Self::Replicate(_)
                | Self::ReplicateTree(_)
                | Self::Batch(batch::BatchCommand::Resume(_))
        )
    }
}

/// A command line that parsed, with tracing running.
#[derive(Debug)]
pub struct Invocation {
    cli: Cli,
    notes: Notes,
}

impl Invocation {
    /// Starts tracing as `cli` asks for it.
    ///
    /// # Errors
    /// A log variable of the environment makes no sense.
    fn new(cli: Cli, notes: Notes) -> Result<Self> {
        let global = &cli.global;
        let default = cli.command.log_level();
        let (level, format) =
            config::logging::settle(global.log_level, global.log_format, default, &process_environment)?;
        logging::start(level, format, &notes);
        Ok(Self { cli, notes })
    }
}

/// Does what was asked for and prints its results and errors. Returns the exit code.
pub async fn run(invocation: Invocation) -> u8 {
    let Invocation { cli, notes } = invocation;
    match dispatch(cli, notes.clone()).await {
        Ok(()) => 0,
        Err(error) => {
            notes.error(&error);
            error.exit
        }
    }
}

/// Says on one line that the program itself is at fault. For the panic hook.
pub fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("unknown reason");
    Notes::new(Format::Text, Mode::None).error(
        &Error::failed("internal", format!("internal error{place}: {reason}"))
            .hint("this is a fault of the program: please report it"),
    );
}

/// Says that secrets cannot be taken out of sight; the exit code.
#[must_use]
pub fn cannot_hide(error: &std::io::Error) -> u8 {
    let error = Error::failed("failed", format!("cannot take a secret out of sight: {error}"))
        .hint("give it by a file, see --api-key-file, --password-stdin and pgpass");
    Notes::new(Format::Text, Mode::None).error(&error);
    error.exit
}

/// Says that there is no runtime to run in; the exit code.
#[must_use]
pub fn cannot_start(invocation: &Invocation, error: &std::io::Error) -> u8 {
    let error = Error::failed("failed", format!("cannot start threads: {error}"));
    invocation.notes.error(&error);
    error.exit
}

async fn dispatch(cli: Cli, notes: Notes) -> Result {
    let Cli { global, command } = cli;
    let output = Output::new(global.output);
    // These work on a machine where nothing is set up yet.
    let (mut output, command) = match command {
        Command::Version(arguments) => return version::run(output, &arguments),
        Command::Completions(arguments) => return completions::run(output, &arguments),
        Command::Man(arguments) => return man::run(output, &arguments),
        command => (output, command),
    };
    output.flush()?;
    // What --config names for sync are its rules, as with the older program; the configuration may come by the environment.
    let (config, rules) =
        if matches!(command, Command::Sync(_)) { (None, global.config) } else { (global.config, None) };
    let typed = Typed {
        database: global.database,
        state_dir: global.state_dir,
        config,
        ca_files: global.ca_files,
        numbers: command.numbers(),
    };
    let config = Config::load(&typed, &process_environment)?;
    let mut context = Context::new(config, output, notes, Clock::System);
    let outcome = if command.handles_signals() {
        execute(&mut context, command, rules).await
    } else {
        // Cancel-safe: what these commands hold is released by dropping it.
        tokio::select! {
            outcome = execute(&mut context, command, rules) => outcome,
            signal = one_signal() => Err(Error::interrupted(signal?, "interrupted by a signal")),
        }
    };
    // What was found out before a failure is still a result.
    let flushed = context.output.flush();
    context.close().await;
    outcome.and(flushed)
}

/// `rules`: the file that `sync` was given.
async fn execute(context: &mut Context, command: Command, rules: Option<PathBuf>) -> Result {
    match command {
        Command::Replicate(arguments) => replicate::run(context, arguments).await,
        Command::Enqueue(arguments) => enqueue::run(context, arguments).await,
        Command::ReplicateTree(arguments) => tree::run(context, arguments).await,
        Command::Sync(arguments) => mirror::sync(context, arguments, rules.as_deref()).await,
        Command::Mirror(command) => mirror::run(context, command).await,
        Command::Batch(command) => batch::run(context, command).await,
        Command::Work(arguments) => work::run(context, arguments).await,
        Command::Serve(arguments) => serve::run(context, arguments).await,
        Command::Keys(command) => keys::run(context, command).await,
        Command::Login(arguments) => credentials::login(context, arguments).await,
        Command::Logout(arguments) => credentials::logout(context, arguments).await,
        Command::Credentials(command) => credentials::run(context, command).await,
        Command::Jobs(command) => jobs::run(context, command).await,
        Command::Queue(command) => queue::run(context, command).await,
        Command::Schedule(command) => schedule::run(context, command).await,
        Command::Workers(command) => workers::run(context, command).await,
        Command::Sweep(arguments) => sweep::run(context, &arguments).await,
        Command::Inspect(arguments) => inspect::run(context, &arguments).await,
        Command::ListTags(arguments) => list_tags::run(context, &arguments).await,
        Command::Manifest(arguments) => manifest::run(context, &arguments).await,
        Command::Delete(arguments) => delete::run(context, &arguments).await,
        Command::Db(command) => db::run(context, &command).await,
        Command::Sql(arguments) => sql::run(context, &arguments).await,
        Command::Doctor(arguments) => doctor::run(context, &arguments).await,
        Command::HealthCheck => health_check::run(context).await,
        // Done before the configuration was read.
        Command::Completions(_) | Command::Man(_) | Command::Version(_) => Ok(()),
    }
}

/// Waits for SIGINT or SIGTERM.
async fn one_signal() -> Result<Signal> {
    let failed = |error: std::io::Error| Error::failed("failed", format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = interrupt.recv() => Ok(Signal::Interrupt),
        _ = terminate.recv() => Ok(Signal::Terminate),
    }
}
