//! What came out: tables for people, one JSON object for programs.

use crate::arguments::Arguments;
use crate::process::Cost;
use crate::{Failure, Measured};
use serde_json::{Value, json};
use std::io::Write as _;

/// One tool's copy.
pub struct Run {
    /// What was copied.
    pub case: &'static str,
    /// How far the registries were.
    pub network: &'static str,
    /// Who copied.
    pub tool: &'static str,
    /// What it cost.
    pub cost: Cost,
    /// Lines of the source's access log.
    pub requests_source: u64,
    /// Lines of the destination's access log.
    pub requests_destination: u64,
    /// Bytes of the source's answers' bodies.
    pub bytes_out: Option<u64>,
    /// Bytes that went to the destination, headers included, where they were counted.
    pub bytes_in: Option<u64>,
}

impl Run {
    fn cells(&self) -> [String; 10] {
        let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| short(mebibytes(count)));
        [
            self.case.to_owned(),
            self.network.to_owned(),
            self.tool.to_owned(),
            short(self.cost.wall.as_secs_f64()),
            short(self.cost.cpu.as_secs_f64()),
            short(mebibytes(self.cost.peak_bytes)),
            self.requests_source.to_string(),
            self.requests_destination.to_string(),
            bytes(self.bytes_out),
            bytes(self.bytes_in),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "case": self.case, "network": self.network, "tool": self.tool,
            "wall_secs": self.cost.wall.as_secs_f64(), "cpu_secs": self.cost.cpu.as_secs_f64(),
            "peak_bytes": self.cost.peak_bytes, "requests_source": self.requests_source,
            "requests_destination": self.requests_destination, "bytes_from_source": self.bytes_out,
            "bytes_to_destination": self.bytes_in,
        })
    }
}

/// A figure that the project wants to be at most so much.
pub struct Goal {
    name: String,
    value: f64,
    unit: &'static str,
    at_most: f64,
}

impl Goal {
    const fn is_met(&self) -> bool {
        self.value <= self.at_most
    }

    fn cells(&self) -> [String; 5] {
        [
            self.name.clone(),
            short(self.value),
            self.unit.to_owned(),
            format!("<= {}", short(self.at_most)),
            if self.is_met() { "ok" } else { "MISSED" }.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "at_most": self.at_most, "met": self.is_met(),
        })
    }
}

/// Everything that came out.
pub struct Report {
    facts: Value,
    runs: Vec<Run>,
    goals: Vec<Goal>,
    wrong: Vec<Value>,
}

impl Report {
    /// Nothing yet, with facts about the machine.
    pub fn new(arguments: &Arguments) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let facts = json!({
            "version": env!("CARGO_PKG_VERSION"), "quick": arguments.quick,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": read("/proc/sys/kernel/osrelease"), "load_at_start": read("/proc/loadavg"),
        });
        Self { facts, runs: Vec::new(), goals: Vec::new(), wrong: Vec::new() }
    }

    /// One more run: of several equal ones the one in the middle.
    ///
    /// # Errors
    /// There is none, or standard error cannot be written.
    pub fn add(&mut self, mut runs: Vec<Run>) -> Measured<Cost> {
        for run in &runs {
            say(&format!("  {}", run.cells().join("  ")))?;
        }
        runs.sort_by_key(|run| run.cost.wall);
        let middle = runs.len() / 2;
        let run = runs.into_iter().nth(middle).ok_or("nothing was measured")?;
        let cost = run.cost;
        self.runs.push(run);
        Ok(cost)
    }

    /// The run that was added last.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// What a figure is, and what it should be.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, at_most: f64) -> Measured {
        let goal = Goal { name: name.into(), value, unit, at_most };
        say(&format!("  {}", goal.cells().join("  ")))?;
        self.goals.push(goal);
        Ok(())
    }

    /// A measurement went wrong: its figures are worth nothing.
    ///
    /// # Errors
    /// Standard error cannot be written.
    pub fn wrong(&mut self, measure: &str, why: &str) -> Measured {
        say(&format!("WRONG: {measure}: {why}"))?;
        self.wrong.push(json!({"measure": measure, "error": why}));
        Ok(())
    }

    /// There are figures, and none of them is wrong.
    pub const fn is_good(&self) -> bool {
        !self.goals.is_empty() && self.wrong.is_empty()
    }

    /// Prints all.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn finish(&self, as_json: bool) -> Measured {
        if as_json {
            let runs: Vec<_> = self.runs.iter().map(Run::json).collect();
            let figures: Vec<_> = self.goals.iter().map(Goal::json).collect();
            let all = json!({"machine": self.facts, "runs": runs, "figures": figures, "wrong": self.wrong});
            return print(&format!("{all}\n"));
        }
        let mut runs = table(&[
            "case", "network", "tool", "wall s", "cpu s", "peak MiB", "req src", "req dst", "MiB src", "MiB dst",
        ]);
        for run in &self.runs {
            runs.add_row(run.cells());
        }
        let mut goals = table(&["figure", "value", "unit", "target", ""]);
        for goal in &self.goals {
            goals.add_row(goal.cells());
        }
        let wrong: String = self.wrong.iter().map(|wrong| format!("WRONG: {wrong}\n")).collect();
        print(&format!("{runs}\n\n{goals}\n{wrong}"))
    }
}

fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "bytes of a benchmark are far below 2^52")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
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
