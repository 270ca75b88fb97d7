//! What came out: a table for people, one JSON object for programs.

use crate::arguments::Arguments;
use crate::database::Place;
use crate::{Failure, Measured};
use serde_json::{Value, json};
use std::io::Write as _;

/// What the project wants to reach.
#[derive(Clone, Copy)]
pub enum Target {
    /// The figure should be this or more.
    AtLeast(f64),
    /// The figure should be this or less.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(target) => value >= target,
            Self::AtMost(target) => value <= target,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(target) => format!(">= {}", short(target)),
            Self::AtMost(target) => format!("<= {}", short(target)),
        }
    }
}

/// One figure.
pub struct Figure {
    measure: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    parameters: Value,
    ratio: Option<(f64, &'static str)>,
    target: Option<Target>,
}

impl Figure {
    /// A figure of a measure, in a unit, with what it was taken with.
    pub fn new(measure: &'static str, name: impl Into<String>, value: f64, unit: &'static str, with: Value) -> Self {
        Self { measure, name: name.into(), value, unit, parameters: with, ratio: None, target: None }
    }

    /// As a multiple of something else that was measured: the raw limit, or the base case.
    pub fn against(mut self, base: f64, what: &'static str) -> Self {
        self.ratio = (base > 0.0).then(|| (self.value / base, what));
        self
    }

    /// With what it should be, where the project says so.
    pub fn target(mut self, target: impl Into<Option<Target>>) -> Self {
        self.target = target.into();
        self
    }

    /// With a limit for the ratio to its base.
    pub fn ratio_at_most(mut self, limit: f64) -> Self {
        self.target =
            self.ratio.filter(|(ratio, _)| *ratio > 0.0).map(|(ratio, _)| Target::AtMost(self.value / ratio * limit));
        self
    }

    fn verdict(&self) -> &'static str {
        match self.target {
            None => "",
            Some(target) if target.is_met(self.value) => "ok",
            Some(_) => "MISSED",
        }
    }

    fn json(&self, database: &str) -> Value {
        let mut figure = json!({
            "database": database, "measure": self.measure, "name": self.name, "value": self.value, "unit": self.unit,
            "parameters": self.parameters,
        });
        if let Some((ratio, to)) = self.ratio {
            figure["ratio"] = json!({"value": ratio, "to": to});
        }
        match self.target {
            Some(Target::AtLeast(target)) => figure["target"] = json!({"at_least": target}),
            Some(Target::AtMost(target)) => figure["target"] = json!({"at_most": target}),
            None => {}
        }
        if let Some(target) = self.target {
            figure["met"] = target.is_met(self.value).into();
        }
        figure
    }

    fn cells(&self, database: &str) -> [String; 7] {
        [
            database.to_owned(),
            self.name.clone(),
            short(self.value),
            self.unit.to_owned(),
            self.ratio.map(|(ratio, to)| format!("{} x {to}", short(ratio))).unwrap_or_default(),
            self.target.map(Target::text).unwrap_or_default(),
            self.verdict().to_owned(),
        ]
    }
}

/// A number with three or so digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything that came out.
pub struct Report {
    facts: Value,
    databases: Vec<Value>,
    figures: Vec<(String, Figure)>,
    database: String,
    left_out: Vec<String>,
    wrong: Vec<Value>,
}

impl Report {
    /// An empty report, with facts about the machine.
    pub fn new(arguments: &Arguments) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let facts = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "quick": arguments.quick,
            "cores": cores,
            "kernel": read("/proc/sys/kernel/osrelease"),
            "load_at_start": read("/proc/loadavg"),
        });
        let none = || Vec::new();
        Self {
            facts,
            databases: none(),
            figures: Vec::new(),
            database: String::new(),
            left_out: Vec::new(),
            wrong: none(),
        }
    }

    /// What follows was measured there.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn next_database(&mut self, place: &Place) -> Measured {
        self.database = place.kind().to_owned();
        let facts = place.facts();
        say(&format!("measuring {facts}"))?;
        self.databases.push(facts);
        Ok(())
    }

    /// One more figure.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn add(&mut self, figure: Figure) -> Measured {
        say(&format!("  {}", figure.cells(&self.database)[1..].join("  ").trim_end()))?;
        self.figures.push((self.database.clone(), figure));
        Ok(())
    }

    /// Something was not measured.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn left_out(&mut self, what: &str) -> Measured {
        say(&format!("LEFT OUT: {what}"))?;
        self.left_out.push(what.to_owned());
        Ok(())
    }

    /// A measurement went wrong: its figures are worth nothing.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn wrong(&mut self, measure: &str, why: &str) -> Measured {
        say(&format!("WRONG: {measure}: {why}"))?;
        self.wrong.push(json!({"database": self.database, "measure": measure, "error": why}));
        Ok(())
    }

    /// There are figures, and none of them is wrong.
    pub const fn is_good(&self) -> bool {
        !self.figures.is_empty() && self.wrong.is_empty()
    }

    /// Prints all.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn finish(&self, as_json: bool) -> Measured {
        if as_json {
            let figures: Vec<Value> = self.figures.iter().map(|(database, figure)| figure.json(database)).collect();
            let all = json!({
                "machine": self.facts, "databases": self.databases, "figures": figures, "left_out": self.left_out,
                "wrong": self.wrong,
            });
            return print(&format!("{all}\n"));
        }
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["database", "figure", "value", "unit", "ratio", "target", ""]);
        for (database, figure) in &self.figures {
            table.add_row(figure.cells(database));
        }
        let mut text = format!("{table}\n");
        for what in &self.left_out {
            text.push_str(&format!("LEFT OUT: {what}\n"));
        }
        for wrong in &self.wrong {
            text.push_str(&format!("WRONG: {wrong}\n"));
        }
        print(&text)
    }
}

/// Tells people how far it is.
///
/// # Errors
/// Standard error cannot be written.
pub fn say(line: &str) -> Measured {
    writeln!(std::io::stderr().lock(), "{line}").map_err(Failure::from)
}

fn print(text: &str) -> Measured {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush().map_err(Failure::from)
}
