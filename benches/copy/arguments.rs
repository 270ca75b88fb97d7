//! The command line of the benchmark.

use crate::MEASURES;

/// What was asked for.
pub struct Arguments {
    /// One JSON object on standard output instead of tables.
    pub json: bool,
    /// A smaller corpus, and one run of each.
    pub quick: bool,
    /// Runs of each tool without delay; the median counts.
    pub runs: usize,
    only: Vec<String>,
}

impl Arguments {
    /// Parses the words of the command line.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self { json: false, quick: false, runs: 0, only: Vec::new() };
        while let Some(word) = words.next() {
            let mut value = |what: &str| words.next().ok_or_else(|| format!("{word} takes {what}"));
            match word.as_str() {
                "--json" => arguments.json = true,
                "--quick" => arguments.quick = true,
                "--runs" => {
                    let number = value("a number")?;
                    arguments.runs = number.parse().map_err(|_| format!("--runs: `{number}` is no number"))?;
                }
                "--only" => arguments.only.extend(value("names")?.split(',').map(str::to_owned)),
                // Cargo adds it.
                "--bench" => {}
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        if let Some(unknown) = arguments.only.iter().find(|name| !MEASURES.contains(&name.as_str())) {
            return Err(format!("there is no measure {unknown}: {}", MEASURES.join(", ")));
        }
        if arguments.runs == 0 {
            arguments.runs = if arguments.quick { 1 } else { 3 };
        }
        Ok(arguments)
    }

    /// This measure was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}
