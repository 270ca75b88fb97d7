//! From words on the command line to an [`Invocation`], or to the end of the program.
//!
//! clap does the parsing. Beside it stands the list of commands that the contract names and that are not there yet: they
//! are no part of the clap types, so that no help, completion or manual shows them, but asking for one must say
//! "not implemented" rather than "unrecognized", whatever stands behind it.

use super::error::{Error, FAILED, Result, USAGE};
use super::output::{self, Format, Notes};
use super::progress::Mode;
use super::{Cli, Invocation};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use std::ffi::{OsStr, OsString};

/// What looks into images better than we ever would.
const OTHER_TOOLS: &str = "syft/grype/skopeo";

/// Commands that are not there yet, below the command that they belong to, and what to use instead.
const ABSENT: [(&str, &str, Option<&str>); 7] = [
    ("", "auth", Some("freightliner credentials list")),
    ("", "config", None),
    ("", "scan", Some(OTHER_TOOLS)),
    ("", "sbom", Some(OTHER_TOOLS)),
    ("", "layers", Some(OTHER_TOOLS)),
    ("", "test-manifest", None),
    ("db", "prune", Some("freightliner jobs prune")),
];

/// Parses the command line (program name first) and starts tracing.
///
/// # Errors
/// The exit code. What there was to say (help, version, what is wrong) has been printed.
pub fn parse(arguments: &[OsString]) -> std::result::Result<Invocation, u8> {
    let arguments = &older_export(arguments);
    let format = typed_format(arguments);
    if let Some(error) = absent(arguments) {
        Notes::new(format, Mode::None).error(&error);
        return Err(FAILED);
    }
    let cli = Cli::try_parse_from(arguments).map_err(|error| explain(&error, format))?;
    let format = cli.global.output;
    let mode = match cli.global.progress {
        _ if cli.global.no_progress => Mode::None,
        Some(mode) => mode,
        None => cli.command.progress(format),
    };
    let notes = Notes::new(format, mode);
    Invocation::new(cli, notes.clone()).map_err(|error| {
        notes.error(&error);
        error.exit
    })
}

/// `checkpoint export -o FILE` is the older program's: there alone, -o is no format.
fn older_export(arguments: &[OsString]) -> Vec<OsString> {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let exports =
        words.windows(2).any(|pair| matches!(pair[0].as_str(), "checkpoint" | "batch") && pair[1] == "export");
    if !exports {
        return arguments.to_vec();
    }
    let is_format = |word: &str| matches!(word, "text" | "json" | "jsonl");
    let mut rewritten = Vec::with_capacity(arguments.len());
    for (at, word) in words.iter().enumerate() {
        let file = match word.as_str() {
            "-o" | "--output" => {
                words.get(at + 1).is_some_and(|next| !is_format(next)).then(|| OsString::from("--file"))
            }
            word => {
                let value = word
                    .strip_prefix("--output=")
                    .or_else(|| word.strip_prefix("-o="))
                    .or_else(|| word.strip_prefix("-o").filter(|value| !word.starts_with("--") && !value.is_empty()));
                value.filter(|value| !is_format(value)).map(|value| OsString::from(format!("--file={value}")))
            }
        };
        rewritten.push(file.unwrap_or_else(|| arguments[at].clone()));
    }
    rewritten
}

/// Prints what clap has to say; the exit code.
fn explain(error: &clap::Error, format: Format) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => end(output::help(&error.render()), format),
        _ => {
            Notes::new(format, Mode::None).error(&usage(error));
            USAGE
        }
    }
}

fn end(result: Result, format: Format) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            Notes::new(format, Mode::None).error(&error);
            error.exit
        }
    }
}

/// clap's error as one line and a hint.
pub(super) fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => "no command was given",
        _ => text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: "),
    };
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let suggested = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| match error.get(kind)? {
            ContextValue::String(word) => Some(word.clone()),
            ContextValue::Strings(words) => words.first().cloned(),
            _ => None,
        });
    let hint =
        suggested.map_or_else(|| "see `freightliner --help`".to_owned(), |word| format!("did you mean `{word}`?"));
    Error::usage(message).hint(hint)
}

/// The format that was asked for, found without parsing the rest: errors of parsing need it.
fn typed_format(arguments: &[OsString]) -> Format {
    let words: Vec<_> =
        arguments.iter().skip(1).map(|word| word.to_string_lossy()).take_while(|word| word != "--").collect();
    let value = |word: &str| match word {
        "json" => Some(Format::Json),
        "jsonl" => Some(Format::Jsonl),
        "text" => Some(Format::Text),
        _ => None,
    };
    let mut typed = words.iter().enumerate().filter_map(|(index, word)| match word.as_ref() {
        "-o" | "--output" => words.get(index + 1).and_then(|next| value(next)),
        word => {
            let attached = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
            attached.and_then(|attached| value(attached.trim_start_matches('=')))
        }
    });
    typed.next_back().unwrap_or_default()
}

/// The answer to a command that is not there yet; None for all others, the misspelled ones included.
fn absent(arguments: &[OsString]) -> Option<Error> {
    let command = Cli::command()
        .allow_external_subcommands(true)
        .mut_subcommand("db", |parent| parent.allow_external_subcommands(true));
    let matches =
        command.try_get_matches_from(arguments.iter().map(OsString::as_os_str).collect::<Vec<&OsStr>>()).ok()?;
    let (first, below) = matches.subcommand()?;
    let below = below.subcommand_name().unwrap_or_default();
    let (parent, name, instead) =
        ABSENT.into_iter().find(
            |(parent, name, _)| {
                if parent.is_empty() { *name == first } else { *parent == first && *name == below }
            },
        )?;
    let typed = if parent.is_empty() { name.to_owned() } else { format!("{parent} {name}") };
    let error = Error::not_implemented(&format!("the command `{typed}`"));
    Some(match instead {
        Some(OTHER_TOOLS) => Error::not_implemented(&format!("use {OTHER_TOOLS}")),
        Some(instead) => error.hint(format!("use {instead}")),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("freightliner").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn the_types_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_not_there_says_so_whatever_stands_behind_it() {
        for line in [
            "config",
            "config show --port 8080 -o file",
            "-o json test-manifest rotate-key -- a b",
            "db prune --older-than 3d",
        ] {
            let error = absent(&words(line)).unwrap_or_else(|| panic!("{line}"));
            assert!(error.message.starts_with("not implemented: ") && error.exit == FAILED, "{line}: {error}");
        }
        assert_eq!(absent(&words("scan alpine")).unwrap().message, "not implemented: use syft/grype/skopeo");
        assert!(absent(&words("config show")).unwrap().message.contains("`config`"));
        assert!(absent(&words("db prune")).unwrap().message.contains("`db prune`"));
        for line in ["jobs list", "jbos list", "jobs lsit", "db info", "db ifno", "", "--help", "replicate config auth"]
        {
            assert_eq!(absent(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn no_absent_command_is_there() {
        let command = Cli::command();
        for (parent, name, _) in ABSENT {
            let within = if parent.is_empty() { Some(&command) } else { command.find_subcommand(parent) };
            assert!(within.unwrap().find_subcommand(name).is_none(), "{parent} {name}");
        }
    }

    #[test]
    fn global_flags_stand_before_or_behind() {
        for line in [
            "-o json --database sqlite:x jobs list",
            "jobs -o json list --database sqlite:x",
            "jobs list -ojson --database=sqlite:x --ca-file a --ca-file b --no-progress --log-level fatal",
            "manifest -o json digest alpine",
            "manifest alpine -o json",
            "replicate a b --priority -5 --src-tls-verify=false --dest-tls-verify --no-referrers -o json",
            "replicate a b --in 5m --detach --output=json",
            "enqueue --from-file - -o json",
            "jobs wait 1 2 --timeout 5s -o json",
            "jobs cancel --state pending -o json",
            "jobs edit 1 2 --priority -5 --now -o json",
            "jobs edit --in-queue a --queue b -o json",
            "jobs pause --state pending --queue a -o json",
            "jobs resume --in-queue a -o json",
            "jobs retry --state failed --failed-class denied --source a -o json",
            "jobs prune --older-than 30d --state failed -o json",
            "queue limit a none -o json",
            "schedule next nightly -n 3 -o json",
            "db restore --in-place -o json",
            "inspect --raw alpine --format json -o json",
        ] {
            let cli = Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.global.output, Format::Json, "{line}");
            assert_eq!(typed_format(&words(line)), Format::Json, "{line}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "jobs show",
            "jobs show x",
            "jobs cancel",
            "jobs why",
            "jobs edit 1",
            "jobs edit --priority 5",
            "jobs edit 1 --now --in 5m",
            "jobs edit 1 --state pending --now",
            "jobs pause",
            "jobs pause --state running",
            "jobs resume 1 --queue a",
            "jobs retry --source a",
            "jobs retry 1 --failed-class denied",
            "jobs cancel 1 --destination a",
            "jobs prune --state running",
            "jobs prune --older-than 30",
            "queue",
            "queue pause",
            "queue limit a",
            "queue limit a 0",
            "queue limit a -1",
            "schedule add x -- a b",
            "schedule add x --cron @daily --every 1h -- a b",
            "schedule add x --every 1 -- a b",
            "schedule add x --every 1h --missed never -- a b",
            "schedule add x --every 1h --overlap never -- a b",
            "schedule add x --every 1h a b",
            "schedule next",
            "schedule next x -n 0",
            "db backup",
            "db copy-to",
            "db restore",
            "db restore x --in-place",
            "replicate a",
            "replicate a b c",
            "replicate a b --at tomorrow",
            "replicate a b --at 2026-11-23T06:00:00Z --in 5m",
            "enqueue a b --from-file x",
            "enqueue",
            "enqueue --from-file x --idempotency-key k",
            "jobs list --state done",
            "jobs list --limit 0",
            "manifest",
            "work --concurrency 0x",
            "sql",
            "jbos",
        ] {
            let error = Cli::try_parse_from(words(line)).err().unwrap_or_else(|| panic!("{line}"));
            assert_eq!(error.exit_code(), i32::from(USAGE), "{line}: {error}");
            let usage = usage(&error);
            assert!(!usage.message.is_empty() && !usage.message.contains('\n'), "{line}: {usage}");
        }
        let error = Cli::try_parse_from(words("jbos")).unwrap_err();
        assert!(usage(&error).hint.unwrap().contains("jobs"));
    }
}
