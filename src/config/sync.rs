//! `sync --config FILE`: the YAML of the older program of the same name, read into rules.
//!
//! Every field works, or is refused with its place. What concerns how work is cut up (`batch_size` and the like) is the
//! queue's matter now: it is read, checked, and said to have no effect when it is not the default.

use super::document::{Node, Problem, Section, Value};
use crate::job::{CopyOptions, PlatformMode};
use crate::mirror::{Destination, Order, Pattern, RULES_LIMIT, Range, Repositories, Rule, Rules, Tags};
use crate::oci::{Platform, Repository, Tag};

/// Kinds of registries that the file may name; they are recognised by their hosts.
const KINDS: [&str; 15] = [
    "docker",
    "dockerhub",
    "gcr",
    "gar",
    "ghcr",
    "github",
    "ecr",
    "acr",
    "azure",
    "quay",
    "harbor",
    "gitlab",
    "artifactory",
    "generic",
    "oci",
];
/// Largest of the numbers of the file.
const NUMBER_MOST: i64 = 1_000_000;

/// What a file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// One for each image.
    pub rules: Rules,
    /// The registry that is read.
    pub source: String,
    /// The registry that is written.
    pub destination: String,
    /// Copies at a time.
    pub parallel: Option<u64>,
    /// Attempts of each copy.
    pub max_attempts: Option<i64>,
    /// What has no effect, one line each.
    pub notes: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn read(node: &Node) -> Result<Sync, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sync = Sync::default();
    let mut file = Section::of(node, "", &mut problems);
    let source = side(&mut file, "source", &mut problems);
    let destination = side(&mut file, "destination", &mut problems);
    sync.parallel = file
        .number("parallel", i64::MIN..=NUMBER_MOST, &mut problems)
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| *number > 0);
    let retries = file.number("retry_attempts", i64::MIN..=1000, &mut problems).filter(|number| *number > 0);
    // So many tries beside the first one.
    sync.max_attempts = retries.map(|retries| (retries + 1).min(1000));
    let skip_existing = file.flag("skip_existing", &mut problems).unwrap_or_default();
    without_effect(&mut file, &mut sync.notes, &mut problems);
    if file.flag("enable_http3", &mut problems) == Some(true) {
        file.problem("enable_http3", "not implemented: HTTP/3; leave it out", &mut problems);
    }
    let images = file.get("images");
    match images.map(|node| &node.value) {
        Some(Value::List(images)) if images.len() > RULES_LIMIT => {
            file.problem("images", format_args!("there are more than {RULES_LIMIT}"), &mut problems);
        }
        Some(Value::List(images)) => {
            for (place, node) in images.iter().enumerate() {
                let sides = source.as_ref().zip(destination.as_ref());
                sync.rules.rules.extend(image(place, node, sides, skip_existing, &mut problems));
            }
        }
        Some(_) => file.problem("images", "it must be a list of images", &mut problems),
        None => {}
    }
    file.end(&mut problems);
    if let (Some(source), Some(destination)) = (source, destination) {
        (sync.source, sync.destination) = (source.registry, destination.registry);
    }
    if problems.is_empty() {
        return Ok(sync);
    }
    problems.sort_by_key(|problem| problem.place);
    Err(problems)
}

/// A registry of the file.
struct Side {
    registry: String,
    insecure: bool,
}

fn side(file: &mut Section<'_>, key: &'static str, problems: &mut Vec<Problem>) -> Option<Side> {
    let Some(node) = file.get(key) else {
        file.problem(key, "it is missing: write `registry: HOST` below it", problems);
        return None;
    };
    let mut section = Section::of(node, key, problems);
    let typed = section.text("registry", problems);
    if typed.is_none() {
        section.problem("registry", "it is missing: write HOST[:PORT]", problems);
    }
    if let Some(kind) = section.text("type", problems)
        && !KINDS.contains(&kind.as_str())
    {
        section.problem("type", format_args!("`{kind}` is unknown: use {}", KINDS.join(", ")), problems);
    }
    let mut insecure = section.flag("insecure", problems).unwrap_or_default();
    auth(&mut section, problems);
    let registry = typed.and_then(|typed| {
        let host = typed.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        insecure |= typed.starts_with("http://");
        let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
        if !(host == "localhost" || host.contains(['.', ':', '['])) {
            let message =
                format!("`{typed}` names no host: write it out, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com");
            section.problem("registry", message, problems);
            return None;
        }
        match Repository::parse(&format!("{host}/x")) {
            Ok(repository) => Some(repository.host().to_owned()),
            Err(error) => {
                section.problem("registry", error, problems);
                None
            }
        }
    });
    for key in ["region", "project", "account"] {
        if let (Some(value), Some(registry)) = (section.text(key, problems), &registry)
            && key == "region"
            && registry.contains(".dkr.ecr.")
            && !registry.contains(&format!(".{value}."))
        {
            section.problem(key, format_args!("`{value}` is not the region of {registry}"), problems);
        }
    }
    section.end(problems);
    registry.map(|registry| Side { registry, insecure })
}

/// Credentials have no place in a row that anybody may read: the files of docker, podman and skopeo are used.
fn auth(section: &mut Section<'_>, problems: &mut Vec<Problem>) {
    let Some(node) = section.get("auth") else { return };
    let mut auth = Section::of(node, "auth", problems);
    for key in ["username", "password", "token"] {
        if auth.text(key, problems).is_some_and(|text| !text.is_empty()) {
            let message = "not implemented: credentials in this file; use docker login, podman login or skopeo login, whose files are read";
            auth.problem(key, message, problems);
        }
    }
    for key in ["aws_profile", "gcp_credentials"] {
        if auth.text(key, problems).is_some_and(|text| !text.is_empty()) {
            let message =
                "not implemented: use a credential helper (credHelpers in ~/.docker/config.json), which is asked";
            auth.problem(key, message, problems);
        }
    }
    if auth.flag("use_docker_config", problems) == Some(false) {
        auth.problem(
            "use_docker_config",
            "the files of docker are always used where they name the registry: leave it out",
            problems,
        );
    }
    auth.end(problems);
}

fn without_effect(file: &mut Section<'_>, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    for (key, default, why) in [
        ("timeout", 300, "each request has time-outs of its own, see [registry] in the configuration"),
        ("batch_size", 10, "the queue hands out one copy at a time"),
        ("min_batch_size", 1, "the queue hands out one copy at a time"),
        ("max_batch_size", 50, "the queue hands out one copy at a time"),
        ("retry_backoff", 5, "see [retry] in the configuration"),
    ] {
        let number = file.number(key, i64::MIN..=NUMBER_MOST, problems);
        if number.is_some_and(|number| number > 0 && number != default) {
            notes.push(format!("{key} has no effect: {why}"));
        }
    }
    if file.flag("enable_adaptive_batching", problems) == Some(true) {
        notes.push("enable_adaptive_batching has no effect: each registry's pace is found anyway".to_owned());
    }
    // Always so: blobs are copied once.
    file.flag("enable_deduplication", problems);
    if file.flag("continue_on_error", problems) == Some(false) {
        notes.push("continue_on_error has no effect: what fails never stops the rest".to_owned());
    }
}

fn image(
    place: usize,
    node: &Node,
    sides: Option<(&Side, &Side)>,
    skip_existing: bool,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let before = problems.len();
    let name = format!("images[{place}]");
    let mut section = Section::of(node, &name, problems);
    let repository = section.text("repository", problems);
    if repository.is_none() {
        section.problem("repository", "it is missing", problems);
    }
    let tags = tags(&mut section, problems);
    let target = section.text("destination_repository", problems);
    let prefix = section.text("destination_prefix", problems).unwrap_or_default();
    let suffix = section.text("destination_suffix", problems).unwrap_or_default();
    for (key, text) in [("destination_prefix", &prefix), ("destination_suffix", &suffix)] {
        if format!("x{text}").parse::<Tag>().is_err() {
            section.problem(key, format_args!("`{text}` can be no part of a tag"), problems);
        }
    }
    let architecture = |text: &str| {
        let platform = if text.contains('/') { text.to_owned() } else { format!("linux/{text}") };
        platform.parse::<Platform>().map(|platform| platform.to_string())
    };
    let platforms = section.list("architectures", architecture, problems).unwrap_or_default();
    unsupported(&mut section, problems);
    section.end(problems);
    let (source, destination) = sides?;
    let repository = repository?;
    let whole = |key: &'static str, registry: &str, name: &str, problems: &mut Vec<Problem>| {
        let found = Repository::parse(&format!("{registry}/{name}"));
        found
            .map_err(|error| {
                problems.push(Problem { place: node.place, message: format!("images[{place}].{key}: {error}") })
            })
            .ok()
    };
    let from = whole("repository", &source.registry, &repository, problems)?;
    let target = target.unwrap_or(repository);
    let to = whole("destination_repository", &destination.registry, &target, problems)?;
    let target = Destination::try_from(format!("{to}:{prefix}{{tag}}{suffix}"));
    let target = target
        .map_err(|error| problems.push(Problem { place: node.place, message: format!("{name}: {error}") }))
        .ok()?;
    if problems.len() > before {
        return None;
    }
    Some(Rule {
        name,
        registry: from.host().to_owned(),
        prefix: String::new(),
        repositories: Repositories { include: from.name().parse().into_iter().collect(), exclude: Vec::new() },
        tags,
        skip_existing,
        destinations: vec![target],
        options: CopyOptions {
            src_tls_verify: source.insecure.then_some(false),
            dest_tls_verify: destination.insecure.then_some(false),
            platform_mode: (!platforms.is_empty()).then_some(PlatformMode::Rewrite),
            platforms,
            ..CopyOptions::default()
        },
    })
}

fn tags(section: &mut Section<'_>, problems: &mut Vec<Problem>) -> Tags {
    let tag = |text: &str| text.parse::<Tag>().map(|tag| tag.to_string());
    let named = section.list("tags", tag, problems);
    let regex = section.read("tag_regex", Pattern::regex, problems);
    let semver = section.read("semver_constraint", str::parse::<Range>, problems);
    let all = section.flag("all_tags", problems).unwrap_or_default();
    let newest = section.number("latest_n", 1..=NUMBER_MOST, problems);
    let limit = section.number("limit", i64::MIN..=NUMBER_MOST, problems).filter(|limit| *limit > 0);
    let given = [
        ("tags", section.get("tags").is_some()),
        ("tag_regex", section.get("tag_regex").is_some()),
        ("semver_constraint", section.get("semver_constraint").is_some()),
        ("all_tags", all),
        ("latest_n", section.get("latest_n").is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(key, given)| given.then_some(key)).collect();
    match given.as_slice() {
        // The newest versions of a range: the help of the older program showed it.
        [_] | ["semver_constraint", "latest_n"] => {}
        [] => {
            let place = section.place;
            let message =
                "no tags are chosen: write one of tags, tag_regex, semver_constraint, all_tags: true or latest_n"
                    .to_owned();
            problems.push(Problem { place, message });
        }
        several => section.problem(several[1], format_args!("choose one of {}", several.join(" and ")), problems),
    }
    if named.as_ref().is_some_and(Vec::is_empty) {
        section.problem("tags", "it is empty", problems);
    }
    let count = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    Tags {
        include: regex.into_iter().collect(),
        newest: count(newest),
        newest_by: if semver.is_some() || newest.is_none() { Order::Semver } else { Order::Created },
        // Tags that are named are meant.
        limit: if named.is_some() { None } else { count(limit) },
        names: named.unwrap_or_default(),
        semver,
        ..Tags::default()
    }
}

fn unsupported(section: &mut Section<'_>, problems: &mut Vec<Problem>) {
    if let Some(node) = section.get("sign_verification") {
        let mut verification = Section::of(node, "sign_verification", problems);
        if verification.flag("enabled", problems) == Some(true) {
            let message =
                "not implemented: signatures are copied, not verified; verify them at the destination with cosign";
            verification.problem("enabled", message, problems);
        }
        for key in ["public_key", "certificate_identity", "issuer"] {
            verification.text(key, problems);
        }
        verification.flag("keyless_verification", problems);
        verification.end(problems);
    }
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    if section.list("skip_layers", text, problems).is_some_and(|layers| !layers.is_empty()) {
        section.problem("skip_layers", "an image without some of its layers is another image: leave it out", problems);
    }
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    fn parse(text: &str) -> Result<Sync, Vec<String>> {
        read(&document::yaml(text).unwrap()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    const SIDES: &str = "source: {registry: registry-1.docker.io, type: docker}\ndestination: {registry: \"localhost:5000\", insecure: true}\n";

    #[test]
    fn images_become_rules() {
        let sync = parse(&format!(
            "{SIDES}parallel: 5\nretry_attempts: 3\nskip_existing: true\nimages:\n\
             - repository: nginx\n  tags: [1.10, \"1.25\", latest]\n  limit: 1\n  destination_repository: mirror/nginx\n  destination_prefix: m-\n  destination_suffix: -x\n\
             - repository: org/app\n  tag_regex: ^v[0-9]+$\n  architectures: [amd64, linux/arm64]\n\
             - {{repository: org/lib, semver_constraint: '>=1.2, <3', limit: 2}}\n\
             - {{repository: org/tool, latest_n: 3}}\n\
             - {{repository: org/all, allTags: true}}\n"
        ))
        .unwrap();
        assert_eq!((sync.source.as_str(), sync.destination.as_str()), ("docker.io", "localhost:5000"));
        assert_eq!((sync.parallel, sync.max_attempts, sync.notes.len()), (Some(5), Some(4), 0));
        let rules = &sync.rules.rules;
        assert_eq!(rules.len(), 5);
        assert!(rules.iter().all(|rule| rule.problems().is_empty() && rule.skip_existing), "{rules:#?}");
        assert_eq!(rules[0].named(), Some(vec!["library/nginx".to_owned()]));
        assert_eq!((rules[0].tags.names.join(" ").as_str(), rules[0].tags.limit), ("1.10 1.25 latest", None));
        assert_eq!(String::from(rules[0].destinations[0].clone()), "localhost:5000/mirror/nginx:m-{tag}-x");
        assert_eq!((rules[0].options.src_tls_verify, rules[0].options.dest_tls_verify), (None, Some(false)));
        assert_eq!(rules[1].options.platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(
            (rules[2].tags.limit, rules[3].tags.newest, rules[3].tags.newest_by),
            (Some(2), Some(3), Order::Created)
        );
        assert!(parse(SIDES).unwrap().rules.rules.is_empty());
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let problems = parse(
            "source: {registry: ecr, type: ecs}\ndestination:\n  registry: b.example\n  auth: {username: u, password: p}\n\
             timeout: soon\nenable_http3: true\nimages:\n- tags: [a]\n- {repository: x, tags: null}\n- {repository: x, tags: [a], latest_n: 2}\n\
             - {repository: X, all_tags: true, tag_regex: '('}\n- {repository: x, semver_constraint: new, sign_verification: {enabled: true}}\n\
             - {repository: x, all_tags: true, skip_layers: [a], unknown: 1}\n",
        )
        .unwrap_err();
        for (place, word) in [
            ("line 1, column 20", "names no host"),
            ("line 1, column 31", "`ecs` is unknown"),
            ("line 4, column 20", "not implemented: credentials"),
            ("line 4, column 33", "not implemented: credentials"),
            ("line 5, column 10", "whole number"),
            ("line 6, column 15", "HTTP/3"),
            ("line 8,", "repository: it is missing"),
            ("line 9,", "no tags are chosen"),
            ("line 10,", "choose one of tags and latest_n"),
            ("line 11,", "unclosed group"),
            ("line 12,", "is no range of versions"),
            ("line 12,", "not verified"),
            ("line 13,", "is another image"),
            ("line 13,", "unknown is unknown"),
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(place) && problem.contains(word)),
                "{place} {word}: {problems:#?}"
            );
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let sync = parse(&format!(
            "{SIDES}timeout: 60\nbatch_size: 10\nenable_adaptive_batching: true\ncontinue_on_error: true\nparallel: 0\n"
        ))
        .unwrap();
        assert_eq!(sync.notes.len(), 2, "{:?}", sync.notes);
        assert_eq!(sync.parallel, None);
    }
}
