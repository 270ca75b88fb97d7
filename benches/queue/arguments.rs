//! The command line of the benchmark.

use crate::MEASURES;

/// What was asked for.
pub struct Arguments {
    /// One JSON object on standard output instead of a table.
    pub json: bool,
    /// Ten times fewer rows.
    pub quick: bool,
    /// Where to measure.
    pub databases: Vec<String>,
    /// What whoever started this knows is not measured, and why.
    pub left_out: Vec<String>,
    only: Vec<String>,
}

impl Arguments {
    /// Parses the words of the command line.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments =
            Self { json: false, quick: false, databases: Vec::new(), left_out: Vec::new(), only: Vec::new() };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut value = |what: &str| words.next().ok_or_else(|| format!("{word} takes {what}"));
            match word.as_str() {
                "--json" => arguments.json = true,
                "--quick" => arguments.quick = true,
                "--database" => arguments.databases.push(value("a URL")?),
                "--left-out" => arguments.left_out.push(value("a reason")?),
                "--only" => arguments.only.extend(value("names")?.split(',').map(str::to_owned)),
                // Cargo adds it.
                "--bench" => {}
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        if let Some(unknown) = arguments.only.iter().find(|name| !MEASURES.contains(&name.as_str())) {
            return Err(format!("there is no measure {unknown}: {}", MEASURES.join(", ")));
        }
        if arguments.databases.is_empty() {
            arguments.databases.push("sqlite:".to_owned());
        }
        Ok(arguments)
    }

    /// This measure was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}
