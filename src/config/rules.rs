//! `schedule import FILE`: the rules of the older program's scheduler, each a mirror with a time.

use super::document::{Node, Problem, Section, Value};
use crate::job::CopyOptions;
use crate::mirror::{Destination, Pattern, RULES_LIMIT, Repositories, Rule, Tags};
use crate::oci::Repository;

/// Most retries of a file.
const RETRIES_MOST: i64 = 999;
/// Largest of the other numbers.
const NUMBER_MOST: i64 = 1_000_000;

/// A rule and when it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// What the older program called it: source and destination.
    pub name: String,
    /// A cron expression, `@every 15m`, `@now` and the like; None: never by itself.
    pub timing: String,
    /// What is copied.
    pub rule: Rule,
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rulebook {
    /// The rules with their times.
    pub rules: Vec<Timed>,
    /// Attempts of each copy.
    pub max_attempts: Option<i64>,
    /// What has no effect, one line each.
    pub notes: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn read(node: &Node) -> Result<Rulebook, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut book = Rulebook::default();
    let mut file = Section::of(node, "", &mut problems);
    let retries = file.number("retry_count", 0..=RETRIES_MOST, &mut problems);
    book.max_attempts = retries.map(|retries| retries + 1);
    for (key, why) in [
        ("max_concurrent_replications", "see `work --concurrency` and `queue limit`"),
        ("metrics_port", "nothing is served here"),
    ] {
        if file.number(key, 0..=NUMBER_MOST, &mut problems).is_some() {
            book.notes.push(format!("{key} has no effect: {why}"));
        }
    }
    match file.get("rules").map(|node| &node.value) {
        Some(Value::List(rules)) if rules.len() <= RULES_LIMIT => {
            for (place, node) in rules.iter().enumerate() {
                if let Some(rule) = rule(place, node, &mut problems) {
                    if book.rules.iter().any(|known| known.name == rule.name) {
                        let message = format!("rules[{place}]: {} stands here twice", rule.name);
                        problems.push(Problem { place: node.place, message });
                    }
                    book.rules.push(rule);
                }
            }
        }
        _ => file.problem("rules", format_args!("it must be a list of at most {RULES_LIMIT} rules"), &mut problems),
    }
    file.end(&mut problems);
    if problems.is_empty() {
        return Ok(book);
    }
    problems.sort_by_key(|problem| problem.place);
    Err(problems)
}

fn rule(place: usize, node: &Node, problems: &mut Vec<Problem>) -> Option<Timed> {
    let before = problems.len();
    let name = format!("rules[{place}]");
    let mut section = Section::of(node, &name, problems);
    let mut needed = |key: &'static str, problems: &mut Vec<Problem>| {
        let text = section.text(key, problems);
        if text.is_none() {
            section.problem(key, "it is missing", problems);
        }
        text
    };
    let from = needed("source_registry", problems);
    let repository = needed("source_repository", problems);
    let to = needed("destination_registry", problems);
    let timing = needed("schedule", problems);
    let target = section.text("destination_repository", problems);
    let pattern = |text: &str| text.parse::<Pattern>();
    let filter = section.read("tag_filter", pattern, problems);
    let mut include = section.list("include_tags", pattern, problems).unwrap_or_default();
    let exclude = section.list("exclude_tags", pattern, problems).unwrap_or_default();
    let force = section.flag("force_overwrite", problems).unwrap_or_default();
    if include.is_empty() {
        include.extend(filter);
    } else if filter.is_some() {
        section.problem("tag_filter", "there is `include_tags` too: write one of them", problems);
    }
    let host = |key: &str, text: &str, problems: &mut Vec<Problem>| {
        let is_host = text == "localhost" || text.contains(['.', ':', '[']);
        match Repository::parse(&format!("{text}/x")) {
            Ok(repository) if is_host => Some(repository.host().to_owned()),
            _ => {
                section.problem(key, format_args!("`{text}` names no host: write it out"), problems);
                None
            }
        }
    };
    let registry = host("source_registry", from.as_deref()?, problems);
    let target_host = host("destination_registry", to.as_deref()?, problems);
    let chosen = section.read("source_repository", pattern, problems);
    let target = target.unwrap_or_else(|| "{repository}".to_owned());
    let destination = target_host.as_ref().and_then(|host| {
        let destination = Destination::try_from(format!("{host}/{target}"));
        destination.map_err(|error| section.problem("destination_repository", error, problems)).ok()
    });
    section.end(problems);
    let (registry, chosen, destination, timing, repository) = (registry?, chosen?, destination?, timing?, repository?);
    if problems.len() > before {
        return None;
    }
    let name = format!("{registry}/{repository} -> {}/{target}", target_host.unwrap_or_default());
    let rule = Rule {
        name: name.clone(),
        registry,
        prefix: String::new(),
        repositories: Repositories { include: vec![chosen], exclude: Vec::new() },
        tags: Tags { include, exclude, ..Tags::default() },
        skip_existing: false,
        destinations: vec![destination],
        // The older program refused to move a tag without it.
        options: CopyOptions { no_clobber: !force, ..CopyOptions::default() },
    };
    let place = node.place;
    problems
        .extend(rule.problems().into_iter().map(|message| Problem { place, message: format!("{name}: {message}") }));
    // A single time is now.
    let timing = if timing.trim() == "@once" { "@now".to_owned() } else { timing.trim().to_owned() };
    (problems.len() == before).then_some(Timed { name, timing, rule })
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    fn parse(text: &str) -> Result<Rulebook, Vec<String>> {
        read(&document::yaml(text).unwrap()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_of_the_older_scheduler_are_read() {
        let book = parse(
            "maxConcurrentReplications: 5\nretry_count: 3\nrules:\n\
             - {source_registry: quay.io, source_repository: 'org/app-*', destination_registry: 'h.example:5000', destination_repository: 'm/$1', schedule: '0 0 2 * * *', include_tags: ['v*'], exclude_tags: ['*-rc*'], force_overwrite: true}\n\
             - {sourceRegistry: quay.io, sourceRepository: org/one, destinationRegistry: h.example, schedule: '@once', tagFilter: latest}\n",
        )
        .unwrap();
        assert_eq!((book.max_attempts, book.notes.len(), book.rules.len()), (Some(4), 1, 2));
        let rule = &book.rules[0].rule;
        let captures = rule.captures("org/app-x");
        assert_eq!(rule.references("org/app-x", &captures, "v1").unwrap(), ["h.example:5000/m/x:v1"]);
        assert!(!rule.options.no_clobber && book.rules[1].rule.options.no_clobber);
        assert_eq!((book.rules[0].timing.as_str(), book.rules[1].timing.as_str()), ("0 0 2 * * *", "@now"));
        assert_eq!(book.rules[1].name, "quay.io/org/one -> h.example/{repository}");
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let problems = parse(
            "rules:\n- {source_registry: ecr, source_repository: a, destination_registry: h.example, schedule: x}\n\
             - {source_repository: 'a-*', destination_registry: h.example}\n\
             - {source_registry: q.example, source_repository: 'a-*', destination_registry: h.example, destination_repository: all, schedule: x, more: 1}\n",
        )
        .unwrap_err();
        for (line, word) in [
            ("line 2,", "names no host"),
            ("line 3,", "source_registry: it is missing"),
            ("line 3,", "schedule: it is missing"),
            ("line 4,", "more is unknown"),
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(line) && problem.contains(word)),
                "{word}: {problems:#?}"
            );
        }
        assert!(parse("rules: 3\n").is_err() && parse("").is_err());
    }
}
