//! `[mirrors.NAME]`: rules of what to keep in step, as they stand in the configuration file.

use super::document::{Node, Problem, Section};
use super::duration;
use crate::job::{CopyOptions, PlatformMode, Referrers};
use crate::mirror::{Destination, Order, Pattern, Range, Repositories, Rule, Rules, Tags, place};
use crate::oci::{Platform, Tag};
use std::collections::BTreeMap;

/// Longest name of a mirror, bytes.
const NAME_LIMIT: usize = 128;
/// Most tags that may be counted or named.
const COUNT_MOST: i64 = 1_000_000;

/// The mirrors of a section whose keys are their names.
pub fn read(node: &Node, problems: &mut Vec<Problem>) -> BTreeMap<String, Rules> {
    let mut mirrors = BTreeMap::new();
    let super::document::Value::Map(entries) = &node.value else {
        problems
            .push(Problem { place: node.place, message: "mirrors must be sections: write [mirrors.NAME]".to_owned() });
        return mirrors;
    };
    for (name, place, node) in entries {
        if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
            let message = format!("a mirror's name has 1 to {NAME_LIMIT} bytes and no control characters");
            problems.push(Problem { place: *place, message });
            continue;
        }
        if let Some(rule) = rule(name, node, problems) {
            mirrors.insert(name.clone(), Rules { rules: vec![rule] });
        }
    }
    mirrors
}

/// One mirror; None when something is wrong with it, which is told.
fn rule(name: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Rule> {
    let before = problems.len();
    let mut section = Section::of(node, &format!("mirrors.{name}"), problems);
    let source = section.read("source", place, problems);
    if source.is_none() && section.get("source").is_none() {
        section.problem("source", "it is missing: write HOST[:PORT][/PREFIX]", problems);
    }
    let pattern = |text: &str| text.parse::<Pattern>();
    let include = section.list("repositories", pattern, problems).unwrap_or_default();
    let exclude = section.list("exclude_repositories", pattern, problems).unwrap_or_default();
    let destinations = destinations(&mut section, problems);
    let tags = tags(&mut section, problems);
    let skip_existing = section.flag("skip_existing", problems).unwrap_or_default();
    let options = options(&mut section, problems);
    let place = section.place;
    section.end(problems);
    let (registry, prefix) = source?;
    if problems.len() > before {
        return None;
    }
    let repositories = Repositories { include, exclude };
    let name = format!("mirrors.{name}");
    let rule = Rule { name, registry, prefix, repositories, tags, skip_existing, destinations, options };
    problems.extend(
        rule.problems().into_iter().map(|message| Problem { place, message: format!("{}: {message}", rule.name) }),
    );
    (problems.len() == before).then_some(rule)
}

fn destinations(section: &mut Section<'_>, problems: &mut Vec<Problem>) -> Vec<Destination> {
    let read = |text: &str| Destination::try_from(text.to_owned());
    let one = section.read("destination", read, problems);
    let several = section.list("destinations", read, problems);
    match (one, several) {
        (Some(_), Some(_)) => {
            section.problem("destinations", "there is `destination` too: write one of them", problems);
            Vec::new()
        }
        (Some(one), None) => vec![one],
        (None, Some(several)) => several,
        (None, None) => {
            if section.get("destination").is_none() {
                section.problem("destination", "it is missing: write HOST[:PORT]/{repository} or the like", problems);
            }
            Vec::new()
        }
    }
}

fn tags(section: &mut Section<'_>, problems: &mut Vec<Problem>) -> Tags {
    let pattern = |text: &str| text.parse::<Pattern>();
    let tag = |text: &str| text.parse::<Tag>().map(|tag| tag.to_string());
    let count = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let tags = Tags {
        names: section.list("tags", tag, problems).unwrap_or_default(),
        include: section.list("include_tags", pattern, problems).unwrap_or_default(),
        semver: section.read("semver", str::parse::<Range>, problems),
        prereleases: section.flag("prereleases", problems).unwrap_or_default(),
        version_prefix: section.text("version_prefix", problems),
        exclude: section.list("exclude_tags", pattern, problems).unwrap_or_default(),
        younger_than_secs: section.read("younger_than", duration, problems).map(|age| age.as_secs()),
        newest: count(section.number("newest", 1..=COUNT_MOST, problems)),
        newest_by: section.read("newest_by", order, problems).unwrap_or_default(),
        limit: count(section.number("limit", 1..=COUNT_MOST, problems)),
    };
    if tags.newest.is_none() && section.get("newest_by").is_some() && section.get("newest").is_none() {
        section.problem("newest_by", "it says nothing without `newest`", problems);
    }
    tags
}

fn order(text: &str) -> Result<Order, String> {
    match text {
        "semver" => Ok(Order::Semver),
        "name" => Ok(Order::Name),
        "created" => Ok(Order::Created),
        "listed" => Ok(Order::Listed),
        other => Err(format!("`{other}` is no order: use semver, name, created or listed")),
    }
}

/// How copies are made, as the section says.
pub fn options(section: &mut Section<'_>, problems: &mut Vec<Problem>) -> CopyOptions {
    let referrers = |text: &str| match text {
        "none" => Ok(Referrers::None),
        "root" => Ok(Referrers::Root),
        "all" => Ok(Referrers::All),
        other => Err(format!("`{other}` is not known: use none, root or all")),
    };
    let mode = |text: &str| match text {
        "sparse" => Ok(PlatformMode::Sparse),
        "rewrite" => Ok(PlatformMode::Rewrite),
        other => Err(format!("`{other}` is not known: use sparse or rewrite")),
    };
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    CopyOptions {
        force: section.flag("force", problems).unwrap_or_default(),
        verify: section.flag("verify", problems).unwrap_or_default(),
        no_clobber: section.flag("no_clobber", problems).unwrap_or_default(),
        src_tls_verify: section.flag("src_tls_verify", problems),
        dest_tls_verify: section.flag("dest_tls_verify", problems),
        referrers: section.read("referrers", referrers, problems),
        artifact_types: section.list("artifact_types", text, problems).unwrap_or_default(),
        platforms: section
            .list("platforms", |text| text.parse::<Platform>().map(|platform| platform.to_string()), problems)
            .unwrap_or_default(),
        platform_mode: section.read("platform_mode", mode, problems),
    }
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    fn parse(text: &str) -> (BTreeMap<String, Rules>, Vec<String>) {
        let node = document::toml(text).unwrap();
        let mut problems = Vec::new();
        let mut section = Section::of(&node, "", &mut problems);
        let mirrors = read(section.get("mirrors").unwrap(), &mut problems);
        problems.sort_by_key(|problem| problem.place);
        (mirrors, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_mirror_is_read_whole() {
        let text = r#"
            [mirrors.nightly]
            source = "quay.io/org"
            repositories = ["app-*", "/^lib/"]
            exclude_repositories = "*-old"
            include_tags = ["v*"]
            semver = ">=1.2 <3"
            prereleases = true
            exclude_tags = ["*-debug"]
            younger_than = "30d"
            newest = 5
            newest_by = "created"
            limit = 3
            destinations = ["a.example.com/m/{rest}", "b.example.com/{name}:{tag}-m"]
            platforms = ["linux/amd64"]
            platform_mode = "rewrite"
            referrers = "all"
            no_clobber = true
            skip_existing = true
        "#;
        let (mirrors, problems) = parse(text);
        assert_eq!(problems, Vec::<String>::new());
        let rule = &mirrors["nightly"].rules[0];
        assert_eq!((rule.registry.as_str(), rule.prefix.as_str(), rule.destinations.len()), ("quay.io", "org", 2));
        assert_eq!(
            (rule.tags.younger_than_secs, rule.tags.newest, rule.tags.limit),
            (Some(2_592_000), Some(5), Some(3))
        );
        assert!(rule.options.no_clobber && rule.skip_existing && rule.options.platforms == ["linux/amd64"]);
        assert_eq!(Rules::from_json(&mirrors["nightly"].to_json()).unwrap(), mirrors["nightly"]);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "[mirrors.a]\nsource = \"nowhere\"\ninclude_tags = [\"v*\", \"/(/\"]\nnewest = 0\nsemvr = \"1\"\n\n\
                    [mirrors.b]\ndestination = \"h.example/{repo}\"\nnewest_by = \"age\"\n\n\
                    [mirrors.c]\nsource = \"h.example\"\ndestination = \"g.example/all\"\n";
        let (mirrors, problems) = parse(text);
        assert!(mirrors.is_empty());
        let wanted = [
            ("line 1,", "destination: it is missing"),
            ("line 2, column 10", "names no registry"),
            ("line 3, column 23", "unclosed group"),
            ("line 4, column 10", "from 1 to 1000000"),
            ("line 5, column 1", "mirrors.a.semvr is unknown"),
            ("line 7,", "source: it is missing"),
            ("line 8, column 15", "{repo}"),
            ("line 9, column 13", "is no order"),
            ("line 9, column 13", "says nothing without `newest`"),
            ("line 11,", "the same for every repository"),
        ];
        assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
        for ((place, word), problem) in wanted.iter().zip(&problems) {
            assert!(problem.starts_with(place) && problem.contains(word), "{problem} ({word})");
        }
    }
}
