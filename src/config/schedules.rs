//! `[schedules.NAME]`: what is made again and again, as it stands in the configuration file.

use super::document::{Node, Problem, Section, Value};
use super::{duration, mirrors};
use crate::job::schedule::{Asked, ScheduleKind};
use crate::job::{DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE, Missed, NewJob, NewSchedule, Overlap};
use crate::mirror::{Pattern, TreeOptions, tree};
use crate::schedule::Timing;
use std::path::Path;

/// The schedules of a section whose keys are their names.
pub fn read(node: &Node, base: &Path, problems: &mut Vec<Problem>) -> Vec<NewSchedule> {
    let Value::Map(entries) = &node.value else {
        let message = "schedules must be sections: write [schedules.NAME]".to_owned();
        problems.push(Problem { place: node.place, message });
        return Vec::new();
    };
    entries.iter().filter_map(|(name, _, node)| schedule(name, node, base, problems)).collect()
}

fn schedule(name: &str, node: &Node, base: &Path, problems: &mut Vec<Problem>) -> Option<NewSchedule> {
    let before = problems.len();
    let mut section = Section::of(node, &format!("schedules.{name}"), problems);
    let timing = timing(&mut section, problems);
    let timezone = section.text("timezone", problems).unwrap_or_else(|| "UTC".to_owned());
    let jitter = section.read("jitter", duration, problems).unwrap_or_default();
    let missed = section.read("missed", str::parse::<Missed>, problems).unwrap_or_default();
    let overlap = section.read("overlap", str::parse::<Overlap>, problems).unwrap_or_default();
    let paused = section.flag("paused", problems).unwrap_or_default();
    let job = asked(&mut section, base, problems);
    let place = section.place;
    section.end(problems);
    let (timing, job) = (timing?, job?);
    if let Err(error) = Timing::parse(&timing, &timezone) {
        problems.push(Problem { place, message: format!("schedules.{name}: {error}") });
    }
    let jitter_ms = i64::try_from(jitter.as_millis()).unwrap_or(i64::MAX);
    let schedule = NewSchedule { name: name.to_owned(), timing, timezone, jitter_ms, missed, overlap, job, paused };
    if let Err(error) = schedule.check() {
        problems.push(Problem { place, message: format!("schedules.{name}: {error}") });
    }
    (problems.len() == before).then_some(schedule)
}

fn timing(section: &mut Section<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let given = [
        section.text("cron", problems),
        section.text("every", problems).map(|every| format!("@every {every}")),
        section.text("once", problems).map(|once| format!("@once {once}")),
    ];
    let mut given: Vec<String> = given.into_iter().flatten().collect();
    if given.len() == 1 {
        return given.pop();
    }
    section.problem("cron", "write one of cron, every or once", problems);
    None
}

fn asked(section: &mut Section<'_>, base: &Path, problems: &mut Vec<Problem>) -> Option<Asked> {
    let mirror = section.text("mirror", problems);
    let (source, destination) = (section.text("source", problems), section.text("destination", problems));
    let is_tree = section.flag("tree", problems).unwrap_or_default();
    let pattern = |text: &str| text.parse::<Pattern>();
    let mut patterns = |key, problems: &mut Vec<Problem>| section.list(key, pattern, problems).unwrap_or_default();
    let (include_repos, exclude_repos) = (patterns("include_repos", problems), patterns("exclude_repos", problems));
    let (include_tags, exclude_tags) = (patterns("include_tags", problems), patterns("exclude_tags", problems));
    let queue = section.text("queue", problems).unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
    let priority = section.number("priority", i64::from(i32::MIN)..=i64::from(i32::MAX), problems);
    let max_attempts = section.number("max_attempts", 1..=1000, problems);
    let copy = mirrors::options(section, problems);
    let options = TreeOptions { include_repos, exclude_repos, include_tags, exclude_tags, copy };
    let made = |kind, source: String, destination: String, options: String| Asked {
        kind,
        source,
        destination,
        options,
        queue,
        priority: priority.unwrap_or(DEFAULT_PRIORITY),
        max_attempts: max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
    };
    match (mirror, source, destination) {
        (Some(name), None, None) if options == TreeOptions::default() && !is_tree => {
            Some(made(ScheduleKind::Mirror, name, String::new(), "{}".to_owned()))
        }
        (None, Some(source), Some(destination)) if is_tree => {
            let text = serde_json::to_string(&options).unwrap_or_default();
            if let Err(error) = tree(&source, &destination, options) {
                section.problem("source", error, problems);
            }
            Some(made(ScheduleKind::Tree, source, destination, text))
        }
        (None, Some(source), Some(destination)) => {
            if options != (TreeOptions { copy: options.copy.clone(), ..TreeOptions::default() }) {
                section.problem("tree", "patterns are for trees: write tree = true", problems);
            }
            match NewJob::parse(&source, &destination, options.copy, base) {
                Ok(job) => {
                    let options = job.parsed.options.canonical();
                    Some(made(ScheduleKind::Copy, job.source, job.destination, options))
                }
                Err(error) => {
                    section.problem("source", error, problems);
                    None
                }
            }
        }
        _ => {
            section.problem("mirror", "write `mirror = \"NAME\"` alone, or `source` and `destination`", problems);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    fn parse(text: &str) -> (Vec<NewSchedule>, Vec<String>) {
        let node = document::toml(text).unwrap();
        let mut problems = Vec::new();
        let mut section = Section::of(&node, "", &mut problems);
        let schedules = read(section.get("schedules").unwrap(), Path::new("/"), &mut problems);
        (schedules, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn schedules_are_read() {
        let (schedules, problems) = parse(
            "[schedules.a]\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\nmirror = \"nightly\"\nmissed = \"catch-up=3\"\n\
             [schedules.b]\nevery = \"1m\"\nsource = \"a.example/x:1\"\ndestination = \"b.example/x:1\"\nplatforms = [\"linux/amd64\"]\n\
             [schedules.c]\nevery = \"1h\"\ntree = true\nsource = \"a.example/x\"\ndestination = \"b.example/x\"\ninclude_tags = [\"v*\"]\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let kinds: Vec<ScheduleKind> = schedules.iter().map(|schedule| schedule.job.kind).collect();
        assert_eq!(kinds, [ScheduleKind::Mirror, ScheduleKind::Copy, ScheduleKind::Tree]);
        assert_eq!(schedules[1].job.options, r#"{"platforms":["linux/amd64"]}"#);
        assert_eq!(schedules[2].job.options, r#"{"include_tags":["v*"]}"#);
    }

    #[test]
    fn mistakes_are_told() {
        let (schedules, problems) = parse(
            "[schedules.a]\nmirror = \"x\"\n[schedules.b]\nevery = \"1m\"\ncron = \"@daily\"\nmirror = \"x\"\n\
             [schedules.c]\ncron = \"30 2 *\"\nmirror = \"x\"\n[schedules.d]\nevery = \"1m\"\nsource = \"a b\"\ndestination = \"c\"\n\
             [schedules.e]\nevery = \"1m\"\nmirror = \"x\"\nsource = \"a\"\n",
        );
        assert!(schedules.is_empty());
        for word in [
            "schedules.a.cron: write one of",
            "schedules.b.cron: write one of",
            "schedules.c: ",
            "schedules.d.source: ",
            "schedules.e.mirror: write",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:#?}");
        }
    }
}
