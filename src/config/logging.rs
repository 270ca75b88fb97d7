//! How much is logged, and in which form. Asked before everything else, so that the rest can log.

use super::{Environment, Error};
use std::str::FromStr;

/// The least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What went wrong and needs somebody.
    Error,
    /// What went wrong and was dealt with.
    Warn,
    /// What a service does.
    Info,
    /// Why it does it.
    Debug,
    /// Everything.
    Trace,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "error" | "fatal" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err("use error, warn, info, debug or trace".to_owned()),
        }
    }
}

/// The form of log lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings in force: flags, then `FREIGHTLINER_LOG_LEVEL` and `FREIGHTLINER_LOG_FORMAT`, then `default`.
///
/// # Errors
/// A variable holds something else.
pub fn settle(
    level: Option<Level>,
    format: Option<LogFormat>,
    default: Level,
    environment: Environment<'_>,
) -> Result<(Level, LogFormat), Error> {
    let text = |name: &str| environment(name).map(|value| value.to_string_lossy().trim().to_owned());
    let level = match (level, text("FREIGHTLINER_LOG_LEVEL")) {
        (Some(level), _) => level,
        (None, Some(text)) => {
            text.parse().map_err(|problem| Error::one(format!("FREIGHTLINER_LOG_LEVEL is `{text}`: {problem}")))?
        }
        (None, None) => default,
    };
    let format = match (format, text("FREIGHTLINER_LOG_FORMAT").as_deref()) {
        (Some(format), _) => format,
        (None, None | Some("text")) => LogFormat::Text,
        (None, Some("json")) => LogFormat::Json,
        (None, Some(other)) => {
            return Err(Error::one(format!("FREIGHTLINER_LOG_FORMAT is `{other}`: use text or json")));
        }
    };
    Ok((level, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_and_fatal_means_error() {
        let environment = |name: &str| match name {
            "FREIGHTLINER_LOG_LEVEL" => Some("FATAL".into()),
            "FREIGHTLINER_LOG_FORMAT" => Some("json".into()),
            _ => None,
        };
        assert_eq!(settle(None, None, Level::Info, &environment), Ok((Level::Error, LogFormat::Json)));
        let typed = settle(Some(Level::Debug), Some(LogFormat::Text), Level::Info, &environment);
        assert_eq!(typed, Ok((Level::Debug, LogFormat::Text)));
        assert_eq!(settle(None, None, Level::Warn, &|_| None), Ok((Level::Warn, LogFormat::Text)));
        let error = settle(None, None, Level::Warn, &|_| Some("loud".into())).unwrap_err();
        assert!(error.to_string().contains("loud"), "{error}");
    }
}
