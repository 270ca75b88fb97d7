//! Which repositories and tags a rule keeps, and which clause decided it: pure, so that what is explained is what is done.

use super::{Order, Rule, Tags, version};
use crate::clock::UnixMillis;
use serde::Serialize;
use std::cmp::Ordering;

/// What became of a repository or a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The name on the registry, or the tag.
    pub name: String,
    /// It is copied.
    pub kept: bool,
    /// The clause that decided it, and why.
    pub clause: String,
}

impl Decision {
    fn new(name: &str, kept: bool, clause: impl Into<String>) -> Self {
        Self { name: name.to_owned(), kept, clause: clause.into() }
    }
}

/// A tag and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The tag.
    pub name: String,
    /// When its image was made; None: it does not say, or nobody asked.
    pub created: Option<UnixMillis>,
}

/// Decides for one repository of the rule's registry.
#[must_use]
pub fn repository(rule: &Rule, name: &str) -> Decision {
    let Some(below) = rule.below(name) else {
        return Decision::new(name, false, format!("not below {}", rule.prefix));
    };
    let clause = match rule.repositories.include.iter().find(|pattern| pattern.matches(below) || pattern.matches(name))
    {
        Some(pattern) => format!("repositories: {pattern}"),
        None if rule.repositories.include.is_empty() => "every repository".to_owned(),
        None => return Decision::new(name, false, "repositories: none matches"),
    };
    match rule.repositories.exclude.iter().find(|pattern| pattern.matches(below) || pattern.matches(name)) {
        Some(pattern) => Decision::new(name, false, format!("exclude_repositories: {pattern}")),
        None => Decision::new(name, true, clause),
    }
}

/// The clauses that look at a tag alone, without the time its image was made: names, include, semver, exclude.
#[must_use]
pub fn by_name(tags: &Tags, name: &str) -> Decision {
    let mut clause = "every tag".to_owned();
    if !tags.names.is_empty() {
        if !tags.names.iter().any(|wanted| wanted == name) {
            return Decision::new(name, false, "tags: not named");
        }
        clause = "tags: named".to_owned();
    }
    if !tags.include.is_empty() {
        match tags.include.iter().find(|pattern| pattern.matches(name)) {
            Some(pattern) => clause = format!("include_tags: {pattern}"),
            None => return Decision::new(name, false, "include_tags: none matches"),
        }
    }
    if let Some(range) = &tags.semver {
        match version(name, tags.version_prefix.as_deref()) {
            None => return Decision::new(name, false, format!("semver {range}: it is no version")),
            Some(found) if !range.matches(&found, tags.prereleases) => {
                let why = if range.matches(&found, true) { "a pre-release" } else { "outside" };
                return Decision::new(name, false, format!("semver {range}: {why}"));
            }
            Some(_) => clause = format!("semver {range}"),
        }
    }
    if let Some(pattern) = tags.exclude.iter().find(|pattern| pattern.matches(name)) {
        return Decision::new(name, false, format!("exclude_tags: {pattern}"));
    }
    Decision::new(name, true, clause)
}

/// Decides for all tags of a repository, in the order of the list. Images' times matter only for the tags that
/// [`by_name`] keeps.
#[must_use]
pub fn tags(rule: &Tags, tags: &[Tag], now: UnixMillis) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = tags.iter().map(|tag| by_name(rule, &tag.name)).collect();
    if let Some(secs) = rule.younger_than_secs {
        let oldest = UnixMillis(now.0.saturating_sub(i64::try_from(secs.saturating_mul(1000)).unwrap_or(i64::MAX)));
        for (decision, tag) in decisions.iter_mut().zip(tags).filter(|(decision, _)| decision.kept) {
            match tag.created {
                None => drop_it(decision, "younger_than: it does not say when it was made".to_owned()),
                Some(created) if created < oldest => {
                    drop_it(decision, format!("younger_than: made {}", created.to_rfc3339()));
                }
                Some(_) => {}
            }
        }
    }
    if let Some(count) = rule.newest {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if matches!(rule.newest_by, Order::Semver) {
            let is_version = |name: &str| {
                version(name, rule.version_prefix.as_deref())
                    .is_some_and(|version| rule.prereleases || rule.semver.is_some() || version.pre.is_empty())
            };
            for decision in decisions.iter_mut().filter(|decision| decision.kept && !is_version(&decision.name)) {
                drop_it(decision, "newest by semver: it is no version, or a pre-release".to_owned());
            }
        }
        let order = ranked(rule, rule.newest_by, &decisions, tags);
        for (rank, at) in order.into_iter().enumerate() {
            if rank >= count {
                drop_it(&mut decisions[at], format!("newest {count}: it is number {}", rank + 1));
            } else {
                decisions[at].clause = format!("newest {count}: it is number {}", rank + 1);
            }
        }
    }
    if let Some(limit) = rule.limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let by = if rule.semver.is_some() { Order::Semver } else { Order::Listed };
        for at in ranked(rule, by, &decisions, tags).into_iter().skip(limit) {
            drop_it(&mut decisions[at], format!("limit {limit}"));
        }
    }
    decisions
}

fn drop_it(decision: &mut Decision, clause: String) {
    decision.kept = false;
    decision.clause = clause;
}

/// The places of the kept tags, the newest first.
fn ranked(rule: &Tags, by: Order, decisions: &[Decision], tags: &[Tag]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..decisions.len()).filter(|at| decisions[*at].kept).collect();
    let name = |at: usize| tags[at].name.as_str();
    match by {
        Order::Listed => {}
        Order::Name => places.sort_by(|one, other| natural(name(*other), name(*one))),
        Order::Created => places.sort_by(|one, other| {
            tags[*other].created.cmp(&tags[*one].created).then_with(|| natural(name(*other), name(*one)))
        }),
        Order::Semver => {
            let of = |at: usize| version(name(at), rule.version_prefix.as_deref());
            places.sort_by(|one, other| of(*other).cmp(&of(*one)).then_with(|| natural(name(*other), name(*one))));
        }
    }
    places
}

/// The order of names in which numbers count by their value.
fn natural(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.as_bytes(), other.as_bytes());
    while let (Some(a), Some(b)) = (left.first(), right.first()) {
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (first, second) = (digits(left), digits(right));
            let value = |text: &[u8], count: usize| {
                let zeros = text[..count].iter().take_while(|byte| **byte == b'0').count();
                text[zeros..count].to_vec()
            };
            let (x, y) = (value(left, first), value(right, second));
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
            if order.is_ne() {
                return order;
            }
            (left, right) = (&left[first..], &right[second..]);
        } else if a == b {
            (left, right) = (&left[1..], &right[1..]);
        } else {
            return a.cmp(b);
        }
    }
    left.len().cmp(&right.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::super::Repositories;
    use super::*;
    use crate::job::CopyOptions;

    fn listed(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| Tag { name: (*name).to_owned(), created: None }).collect()
    }

    fn kept(rule: &Tags, names: &[&str]) -> Vec<String> {
        let decisions = tags(rule, &listed(names), UnixMillis(0));
        assert_eq!(decisions.len(), names.len());
        decisions.into_iter().filter(|decision| decision.kept).map(|decision| decision.name).collect()
    }

    fn patterns(texts: &[&str]) -> Vec<super::super::Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn repositories_are_chosen_below_the_prefix() {
        let mut rule = Rule {
            name: String::new(),
            registry: "h".to_owned(),
            prefix: "org".to_owned(),
            repositories: Repositories::default(),
            tags: Tags::default(),
            skip_existing: false,
            destinations: Vec::new(),
            options: CopyOptions::default(),
        };
        assert!(repository(&rule, "org/a").kept && repository(&rule, "org").kept);
        assert_eq!(repository(&rule, "organ/a").clause, "not below org");
        rule.repositories = Repositories { include: patterns(&["app*", "lib/*"]), exclude: patterns(&["*-old"]) };
        assert_eq!(repository(&rule, "org/app-1").clause, "repositories: app*");
        assert_eq!(repository(&rule, "org/lib/x").clause, "repositories: lib/*");
        assert_eq!(repository(&rule, "org/app-old").clause, "exclude_repositories: *-old");
        assert_eq!(repository(&rule, "org/x").clause, "repositories: none matches");
    }

    #[test]
    fn the_clauses_are_applied_in_their_order() {
        let rule = Tags {
            include: patterns(&["v*", "1.*"]),
            semver: Some("^1".parse().unwrap()),
            exclude: patterns(&["*.2"]),
            newest: Some(2),
            ..Tags::default()
        };
        let names = ["v1.0", "v1.1", "v1.2", "1.3", "2.0", "v2.0", "latest", "v1.9-rc1"];
        assert_eq!(kept(&rule, &names), ["v1.1", "1.3"]);
        let decisions = tags(&rule, &listed(&names), UnixMillis(0));
        let clauses: Vec<&str> = decisions.iter().map(|decision| decision.clause.as_str()).collect();
        assert_eq!(
            clauses,
            [
                "newest 2: it is number 3",
                "newest 2: it is number 2",
                "exclude_tags: *.2",
                "newest 2: it is number 1",
                "include_tags: none matches",
                "semver ^1: outside",
                "include_tags: none matches",
                "semver ^1: a pre-release",
            ]
        );
    }

    #[test]
    fn newest_has_several_meanings() {
        let names = ["1.9", "1.10", "latest", "1.10-rc1", "0.1"];
        let by = |newest_by| kept(&Tags { newest: Some(2), newest_by, ..Tags::default() }, &names);
        assert_eq!(by(Order::Semver), ["1.9", "1.10"]);
        assert_eq!(by(Order::Name), ["latest", "1.10-rc1"]);
        assert_eq!(by(Order::Listed), ["1.9", "1.10"]);
        let times = [3, 9, 1, 7].map(UnixMillis);
        let made: Vec<Tag> = ["a", "b", "c", "d"]
            .iter()
            .zip(times)
            .map(|(name, at)| Tag { name: (*name).to_owned(), created: Some(at) })
            .collect();
        let rule = Tags { newest: Some(2), newest_by: Order::Created, ..Tags::default() };
        let decisions = tags(&rule, &made, UnixMillis(10));
        assert_eq!(decisions.iter().map(|decision| decision.kept).collect::<Vec<_>>(), [false, true, false, true]);
    }

    #[test]
    fn age_and_limit_are_bounds() {
        let made = |name: &str, at: Option<i64>| Tag { name: name.to_owned(), created: at.map(UnixMillis) };
        let all = [made("old", Some(1_000)), made("new", Some(9_000)), made("unknown", None)];
        let rule = Tags { younger_than_secs: Some(5), ..Tags::default() };
        let decisions = tags(&rule, &all, UnixMillis(10_000));
        assert_eq!(decisions.iter().map(|decision| decision.kept).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(kept(&Tags { limit: Some(2), ..Tags::default() }, &["c", "b", "a"]), ["c", "b"]);
        let versions = Tags { limit: Some(1), semver: Some("*".parse().unwrap()), ..Tags::default() };
        assert_eq!(kept(&versions, &["1.0", "1.10", "1.9"]), ["1.10"]);
    }

    #[test]
    fn numbers_in_names_count_by_value() {
        let mut names = ["a10", "a9", "a", "b1", "a010", "a9b", "00", "0"];
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(names, ["0", "00", "a", "a9", "a9b", "a010", "a10", "b1"]);
    }
}
