//! The only file that prints.
//!
//! Results go to stdout through [`Output`]; notes, errors and log lines to stderr through [`Notes`], which first takes the
//! progress bars out of the way. Text that came from outside (references, registries' messages, rows that anybody may have
//! inserted) is stripped of control characters before it reaches a terminal: a registry must not be able to move our
//! cursor. A reader that went away (`| head`) ends the command quietly; nothing here panics when a stream is closed.

use super::error::{Error, Result};
use super::progress::Mode;
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Text,
    /// One JSON value.
    Json,
    /// One JSON object a line, for commands that print many rows.
    Jsonl,
}

impl Format {
    /// JSON of either form.
    #[must_use]
    pub const fn is_json(self) -> bool {
        !matches!(self, Self::Text)
    }
}

/// Stdout. Buffered: [`Output::flush`] tells whether everything arrived.
#[derive(Debug)]
pub struct Output {
    format: Format,
    stdout: BufWriter<Stdout>,
}

impl Output {
    /// Writes results in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, stdout: BufWriter::new(std::io::stdout()) }
    }

    /// The format that was asked for.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// One line of text.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn line(&mut self, text: &str) -> Result {
        writeln!(self.stdout, "{}", printable(text)).map_err(|error| Error::stdout(&error))
    }

    /// These bytes, as they are.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn raw(&mut self, bytes: &[u8]) -> Result {
        self.stdout.write_all(bytes).map_err(|error| Error::stdout(&error))
    }

    /// One JSON value: indented for `json`, on one line for `jsonl`.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn json(&mut self, value: &impl Serialize) -> Result {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value),
            Format::Text | Format::Json => serde_json::to_string_pretty(value),
        };
        self.written(text)
    }

    /// One JSON value on one line, in either form.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn compact(&mut self, value: &impl Serialize) -> Result {
        self.written(serde_json::to_string(value))
    }

    fn written(&mut self, text: serde_json::Result<String>) -> Result {
        let text = text.map_err(|error| Error::failed("io", format!("writing JSON failed: {error}")))?;
        writeln!(self.stdout, "{text}").map_err(|error| Error::stdout(&error))
    }

    /// Many values: an array for `json`, an object a line for `jsonl`. Nothing for `text`.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn rows<T: Serialize>(&mut self, values: impl IntoIterator<Item = T>) -> Result {
        let mut rows = Rows::new(self.format);
        for value in values {
            rows.add(self, &value)?;
        }
        rows.end(self)
    }

    /// A table for people: one row a line, columns aligned, nothing cut.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().map(|name| printable(name)));
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            writeln!(self.stdout, "{}", line.trim_end()).map_err(|error| Error::stdout(&error))?;
        }
        Ok(())
    }

    /// `name: value` lines, values aligned.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn pairs(&mut self, pairs: &[(&str, String)]) -> Result {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        pairs.iter().try_for_each(|(name, value)| self.line(&format!("{:width$} {value}", format!("{name}:"))))
    }

    /// Everything written so far has left the program.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn flush(&mut self) -> Result {
        self.stdout.flush().map_err(|error| Error::stdout(&error))
    }
}

/// Many JSON values, written as they come.
#[derive(Debug)]
pub struct Rows {
    format: Format,
    count: usize,
}

impl Rows {
    /// None yet.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, count: 0 }
    }

    /// One more.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn add(&mut self, output: &mut Output, value: &impl Serialize) -> Result {
        match self.format {
            Format::Text => return Ok(()),
            Format::Json => output.raw(if self.count == 0 { b"[\n" } else { b",\n" })?,
            Format::Jsonl => {}
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Error::failed("io", format!("writing JSON failed: {error}")))?;
        output.raw(text.as_bytes())?;
        self.count += 1;
        if self.format == Format::Jsonl { output.raw(b"\n") } else { Ok(()) }
    }

    /// No more.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn end(self, output: &mut Output) -> Result {
        match (self.format, self.count) {
            (Format::Json, 0) => output.raw(b"[]\n"),
            (Format::Json, _) => output.raw(b"\n]\n"),
            (Format::Text | Format::Jsonl, _) => Ok(()),
        }
    }
}

/// Stderr: notes, errors, log lines, progress bars. Cheap to clone; clones share the terminal.
#[derive(Debug, Clone)]
pub struct Notes {
    format: Format,
    mode: Mode,
    bars: MultiProgress,
}

impl Notes {
    /// With this kind of progress; bars are drawn if stderr is a terminal.
    #[must_use]
    pub fn new(format: Format, mode: Mode) -> Self {
        let shown = mode == Mode::Bars && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { format, mode, bars: MultiProgress::with_draw_target(target) }
    }

    /// How progress is shown.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Where progress bars are added.
    #[must_use]
    pub const fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// One line for people who watch. Nothing for programs that read JSON: they look at the result.
    pub fn note(&self, text: &str) {
        if self.mode == Mode::Jsonl {
            self.event(&serde_json::json!({"event": "note", "message": printable(text)}));
        } else if !self.format.is_json() {
            self.write(format!("{}\n", printable(text)).as_bytes());
        }
    }

    /// One JSON object on a line of its own, for programs that watch.
    pub fn event(&self, object: &serde_json::Value) {
        self.write(format!("{object}\n").as_bytes());
    }

    /// The error and its hint, in the format that was asked for. A stderr that is closed cannot be complained about.
    pub fn error(&self, error: &Error) {
        if error.is_silent() {
            return;
        }
        let message = printable(&error.message);
        let hint = error.hint.as_deref().map(printable);
        if self.format.is_json() {
            let mut content = serde_json::json!({"code": error.code, "message": message, "hint": hint});
            if let (Some(lines), Some(content)) = (&error.lines, content.as_object_mut()) {
                content.insert("lines".to_owned(), lines.clone());
            }
            self.write(format!("{}\n", serde_json::json!({"error": content})).as_bytes());
            return;
        }
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        self.write(format!("error: {message}\n{hint}").as_bytes());
    }

    /// Asks a question on the terminal: without a line end.
    pub fn ask(&self, question: &str) {
        self.write(printable(question).as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        // A closed stderr is no reason to stop working.
        self.bars.suspend(|| std::io::stderr().lock().write_all(bytes)).unwrap_or_default();
    }
}

/// Log lines go where notes go.
impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Self::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Help and version, on stdout, with colours where they are welcome.
///
/// # Errors
/// Stdout cannot be written.
pub fn help(text: &clap::builder::StyledStr) -> Result {
    let mut stdout = std::io::stdout();
    let text = if colours(&stdout) { text.ansi().to_string() } else { text.to_string() };
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Error::stdout(&error))
}

/// The stream is a terminal and nobody asked for plain text (<https://no-color.org>).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && crate::config::process_environment("NO_COLOR").is_none()
}

/// Text with every control character and every character that turns the writing direction replaced, on one line.
#[must_use]
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| {
            if c == '\n' || c == '\t' {
                ' '
            } else if hidden(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Bytes for people: `12.3 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\td\r"), "a\u{fffd}[2Jb c d\u{fffd}");
        assert_eq!(printable("a\u{202e}b"), "a\u{fffd}b");
        assert_eq!(printable("größe 大"), "größe 大");
    }
}
